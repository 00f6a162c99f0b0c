"""Dynamic sampling with small fakes: which prompts are asked, which groups are learnt from, which are dropped."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.algorithms import DynamicSamplingSettings, LengthPenaltySettings, ShapingSettings
from plumbob.configs.settings.data import PromptDataSettings
from plumbob.configs.settings.models import AlignedPolicySettings
from plumbob.configs.settings.reward_parts import ModelPart
from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.configs.settings.training import OnlineSettings
from plumbob.data.prompts import EncodedPrompt, PromptCursor
from plumbob.reward.scorer import Score, ScoreRequest
from plumbob.rollout.requests import response_seed
from plumbob.rollout.rollout_records import Rollout, SampleRequest
from plumbob.trainers.online.collection.collector import Collector, StepResponses, rewards_differ
from plumbob.trainers.online.collection.sample_ledger import SampleLedger

PROMPTS = tuple(EncodedPrompt(f"p{place}", f"p{place}", np.array([3, place], np.int32)) for place in range(8))
SEED = 5


def response(request: SampleRequest, num_tokens: int = 1, finish_reason: Any = "stop") -> Rollout:
    ones = np.ones(num_tokens, np.int32)
    text = str(request.sample_index)
    return Rollout(request, finish_reason, text, ones, ones * np.float32(-1), ones, ones > 0, "w")


class Fake:
    """Samplers and scorer: response i to a prompt that teaches earns i, any response to another earns 2."""

    def __init__(self, teaching: Sequence[str]) -> None:
        self.teaching = set(teaching)
        self.rounds: list[list[SampleRequest]] = []

    def sample(self, requests: Sequence[SampleRequest]) -> list[Rollout]:
        self.rounds.append(list(requests))
        return [response(request) for request in requests]

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        return [Score(float(one.response) if one.prompt in self.teaching else 2.0, {}) for one in requests]


def order() -> list[str]:
    """The prompts as the cursor gives them."""
    return [prompt.prompt_id for prompt in PromptCursor(PROMPTS, SEED).next(len(PROMPTS))]


def online_run(dynamic: DynamicSamplingSettings | None, **changes: Any) -> OnlineRun:
    return OnlineRun(
        data=PromptDataSettings(prompts="unused"),
        policy=AlignedPolicySettings(model="unused"),
        reward=ScorerSettings(model="unused"),
        online=OnlineSettings(
            prompts_per_step=2, samples_per_prompt=2, minibatch_size=4, dynamic_sampling=dynamic, **changes
        ),
        seed=SEED,
    )


def collected(
    teaching: Sequence[int], dynamic: DynamicSamplingSettings | None
) -> tuple[Fake, PromptCursor, StepResponses]:
    """Two groups of two; `teaching`: places in the cursor's order."""
    run = online_run(dynamic)
    fake: Any = Fake([order()[place] for place in teaching])
    cursor = PromptCursor(PROMPTS, SEED)
    return fake, cursor, Collector(run, cursor, fake, fake, SampleLedger(), lambda name: nullcontext()).collect(4)


def prompts_of(rollouts: Sequence[Rollout]) -> list[int]:
    return [order().index(rollout.request.prompt_id) for rollout in rollouts]


def test_groups_without_spread_are_replaced_by_other_prompts() -> None:
    # Round 1 asks prompts 0 and 1, of which 1 teaches; round 2 asks 2 in the place of 0; round 3 asks 3.
    fake, cursor, found = collected([1, 3], DynamicSamplingSettings(max_rounds=3))
    assert [len(requests) for requests in fake.rounds] == [4, 2, 2]
    assert prompts_of(found.rollouts) == [1, 1, 3, 3]
    assert prompts_of([rollout for rollout, _ in found.dropped]) == [0, 0, 2, 2]
    assert [score.total for score in found.scores] == [0, 1, 0, 1]
    assert [score.total for _, score in found.dropped] == [2, 2, 2, 2]
    assert (found.num_rounds, found.num_flat) == (3, 0)
    assert found.positions == {"4-0": 0, "4-1": 1, "4-2": 2, "4-3": 3}
    assert cursor.state()["position"] == 4


def test_every_group_of_a_step_has_a_name_and_every_response_a_seed_of_its_own() -> None:
    fake, _, _ = collected([1, 3], DynamicSamplingSettings(max_rounds=3))
    asked = [request for requests in fake.rounds for request in requests]
    assert [request.group_id for request in asked] == [f"4-{place}" for place in (0, 0, 1, 1, 2, 2, 3, 3)]
    assert [request.seed for request in asked] == [response_seed(SEED, r.group_id, r.sample_index) for r in asked]
    assert len({request.seed for request in asked}) == 8


def test_after_the_last_round_the_step_is_filled_up() -> None:
    # Only prompt 1 teaches; rounds 2 and 3 ask 2 and 3 in vain; the first group without spread fills the step.
    _, cursor, found = collected([1], DynamicSamplingSettings(max_rounds=3))
    assert prompts_of(found.rollouts) == [1, 1, 0, 0]
    assert prompts_of([rollout for rollout, _ in found.dropped]) == [2, 2, 3, 3]
    assert (found.num_rounds, found.num_flat) == (3, 1)
    assert cursor.state()["position"] == 4


def test_one_round_is_enough_when_all_teach() -> None:
    _, cursor, found = collected([0, 1], DynamicSamplingSettings(max_rounds=3))
    assert (prompts_of(found.rollouts), found.dropped, found.num_rounds, found.num_flat) == ([0, 0, 1, 1], (), 1, 0)
    assert cursor.state()["position"] == 2


def test_a_group_that_is_all_wrong_and_differs_in_length_alone_is_replaced() -> None:
    # Prompt 0's responses earn the same and pay for 1 and 2 tokens; 1 and 2 teach.
    class Longer(Fake):
        def sample(self, requests: Sequence[SampleRequest]) -> list[Rollout]:
            super().sample(requests)
            return [response(request, 1 + request.sample_index) for request in requests]

    shaping = ShapingSettings(length_penalty=LengthPenaltySettings(free_tokens=1, per_token=0.5))
    run = online_run(DynamicSamplingSettings(max_rounds=3), shaping=shaping)
    fake: Any = Longer(order()[1:3])
    found = Collector(run, PromptCursor(PROMPTS, SEED), fake, fake, SampleLedger(), lambda name: nullcontext()).collect(
        4
    )
    assert prompts_of(found.rollouts) == [1, 1, 2, 2]
    assert prompts_of([rollout for rollout, _ in found.dropped]) == [0, 0]


def test_without_dynamic_sampling_nothing_is_dropped() -> None:
    _, _, found = collected([], None)
    assert (prompts_of(found.rollouts), found.dropped, found.num_rounds, found.num_flat) == ([0, 0, 1, 1], (), 1, 0)


def test_samplers_are_idle_while_responses_are_scored_and_learnt_from(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("plumbob.trainers.online.collection.collector.time", SimpleNamespace(monotonic=lambda: now))

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        nonlocal now
        yield
        now += {"sample": 0, "score": 3}[name]

    class Slow(Fake):
        def sample(self, requests: Sequence[SampleRequest]) -> list[Rollout]:
            nonlocal now
            now += 10
            return super().sample(requests)

    fake: Any = Slow(order()[:3])
    run = online_run(DynamicSamplingSettings(max_rounds=3))
    collector = Collector(run, PromptCursor(PROMPTS, SEED), fake, fake, SampleLedger(), phase)
    now += 1
    # Prompts 0 and 1 teach; then 2 does, but neither 3 nor those that are asked in its place.
    assert collector.collect(0).sampler_idle_s == 1
    now += 5
    found = collector.collect(1)
    # Scoring before, learning, and the scoring between the rounds; not the seconds of sampling.
    assert found.num_rounds == 3 and found.sampler_idle_s == 3 + 5 + 3 + 3


@pytest.mark.parametrize(
    ("totals", "settings", "expected"),
    [
        ((1.0, 1.0), {}, False),  # One of them is cut at the limit and pays for it: that is not the task's.
        ((1.0, 1.5), {}, True),
        ((7.0, 9.0), {}, False),  # Both clipped to 5.
        ((7.0, 9.0), {"shaping": ShapingSettings(clip=None)}, True),
        ((7.0, float("nan")), {}, True),  # Kept, for the learner to refuse by name.
        ((1.0, 1.5), {"mask_truncated": True}, False),  # The cut one is not learnt from, and another there is not.
    ],
)
def test_spread_is_that_of_the_tasks_rewards(totals: Sequence[float], settings: dict[str, Any], expected: bool) -> None:
    request = SampleRequest("p", "g", 0, 0, "", np.array([3], np.int32))
    rollouts = (response(request, 2, "stop"), response(request, 3, "length"))
    group = [(rollout, Score(total, {})) for rollout, total in zip(rollouts, totals, strict=True)]
    run = online_run(DynamicSamplingSettings())
    run = run.model_copy(update={"online": run.online.model_copy(update=settings)})
    assert rewards_differ(group, run) is expected


def test_by_standardised_parts_a_spread_that_the_sum_hides_is_one() -> None:
    request = SampleRequest("p", "g", 0, 0, "", np.array([3], np.int32))
    values = ((1.0, 0.0), (0.0, 1.0), (0.5, 0.5))
    group = [(response(request), Score(sum(two), {"first": two[0], "second": two[1]})) for two in values]
    parts = tuple(ModelPart(model="m", name=name, weight=weight) for name, weight in (("first", 1.0), ("second", 2.0)))
    run = online_run(DynamicSamplingSettings())
    assert not rewards_differ(group, run)
    changes = {
        "online": run.online.model_copy(update={"combine_parts": "standardised"}),
        "reward": ScorerSettings(parts=parts),
    }
    assert rewards_differ(group, run.model_copy(update=changes))
