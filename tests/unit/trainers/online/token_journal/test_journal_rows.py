"""The journal's rows of a step: two tokens whose every number is derived by hand, and where there is none."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from plumbob.configs.settings.algorithms import (
    Clipped,
    Distillation,
    Estimator,
    FixedKl,
    Gae,
    LengthPenaltySettings,
    OverlongPenaltySettings,
    Rloo,
    ShapingSettings,
)
from plumbob.configs.settings.training import OnlineSettings
from plumbob.reward.scorer import Score
from plumbob.rollout.journal import JournalRow
from plumbob.rollout.rollout_records import Rollout, SampleRequest
from plumbob.rollout.token_numbers import td_errors
from plumbob.trainers.learner.token_values import TokenLog
from plumbob.trainers.online.collection.collector import StepResponses
from plumbob.trainers.online.experience import (
    ComparedRows,
    LogprobsAndValues,
    MadeExperience,
    TeacherLogprobs,
    make_experience,
)
from plumbob.trainers.online.objective import policy_loss_sum, train_rows
from plumbob.trainers.online.part_rewards import CombinedScores
from plumbob.trainers.online.token_journal.journal_rows import StepUpdate, journal_rows
from plumbob.trainers.online.trajectories import collate_rollouts

PPO = OnlineSettings(
    estimator=Gae(gamma=0.5, lam=0.5, whiten=False),
    policy_loss=Clipped(clip_range=0.2),
    kl=FixedKl(coefficient=0.1),
    shaping=ShapingSettings(
        scale=2.0,
        clip=5.0,
        missing_eos_penalty=1.0,
        length_penalty=LengthPenaltySettings(free_tokens=1, per_token=0.5),
        overlong_penalty=OverlongPenaltySettings(cache_tokens=4, penalty=1.0),
    ),
)
MAX_TOKENS = 4
SCORE = Score(3.0, {"a": 1.0, "b": 2.0}, weighted={"a": 2.0, "b": 1.0})
OWN = [0.0, -1.0, -0.5]
"""The policy's log-probs before the update, of the padded row: a prompt of one token, and two of the response."""


def rollout(place: int, response: list[int], logprobs: list[float], mask: list[bool]) -> Rollout:
    request = SampleRequest(f"p{place}", f"g{place}", 0, 9, "q", np.array([5], np.int32))
    ids = np.array(response, np.int32)
    floats, flags = np.array(logprobs, np.float32), np.array(mask, np.bool_)
    return Rollout(request, "stop", "a", ids, floats, ids * 0 + 4, flags, "rollout-0")


def responses_of(*rollouts: Rollout, scores: tuple[Score, ...] = (SCORE,), **dropped: Any) -> StepResponses:
    positions = {f"g{place}": 10 + place for place in range(9)}
    return StepResponses(rollouts, scores, dropped.get("dropped", ()), 1, 0, positions)


TWO = responses_of(rollout(0, [7, 2], OWN[1:], [True, True]))


def computed(**changes: Any) -> LogprobsAndValues:
    """Of `TWO`, by the learner."""
    numbers = {
        "logprobs": torch.tensor([OWN]),
        "ref_logprobs": torch.tensor([[0.0, -1.5, -0.25]]),
        "values": torch.tensor([[0.0, 0.5, 0.25]]),
        "entropies": torch.tensor([[0.0, 1.25, 0.75]]),
    }
    return LogprobsAndValues(**(numbers | changes))


def forward_at(logprobs: list[list[float]], entropies: list[list[float]]) -> Any:
    """A model's forward that gives these, whatever it is asked."""

    def forward(*asked: Any) -> Tensor:
        found = torch.tensor(logprobs)
        return torch.stack([found, torch.tensor(entropies)], dim=1) if asked[-1] is True else found

    return forward


def made(responses: StepResponses, known: LogprobsAndValues, online: OnlineSettings, totals: Tensor) -> MadeExperience:
    return make_experience(collate_rollouts(responses.rollouts, 0), totals, known, online, 0.1, 4, MAX_TOKENS)


def rows_of(
    responses: StepResponses,
    known: LogprobsAndValues,
    forwards: list[Any],
    online: OnlineSettings = PPO,
    standardised: Mapping[str, Tensor] | None = None,
) -> list[JournalRow]:
    """After an update whose epochs' forwards gave these; none of an objective that measures no tokens."""
    totals = torch.tensor([score.total for score in responses.scores])
    if standardised:
        totals = torch.stack(list(standardised.values())).sum(dim=0)
    experience, _, earned = made(responses, known, online, totals)
    learnt = train_rows(online.estimator, experience, known, collate_rollouts(responses.rollouts, 0).groups)
    log = TokenLog(len(forwards))
    for epoch, forward in enumerate(forwards):
        log.epoch = epoch
        sums = policy_loss_sum(online, 1.0, forward, learnt.batch)
        log.add(np.arange(experience.num_rows), sums.tokens)
    step = StepUpdate(experience, CombinedScores(totals, standardised or {}), earned, learnt, log.joined())
    return journal_rows(responses, known, step)


FIRST_EPOCH = forward_at([OWN], [[0.0, 9.0, 9.0]])
LAST_EPOCH = forward_at([[0.0, -1.0 + math.log(1.5), -0.5 + math.log(0.5)]], [[0.0, 8.0, 8.0]])


def close(numbers: Any, expected: list[float]) -> bool:
    assert numbers.dtype == np.float32
    return bool(numbers.tolist() == pytest.approx(expected, abs=1e-6))


def test_every_number_of_two_tokens_by_hand() -> None:
    # Score 3, scaled to 6, cut to 5, less 0.5 for the second token and 1 x 2/4 for the length: 4. u = 0.5, -0.25: with
    # beta 0.1 the tokens' rewards are -0.05 and 4 + 0.025.
    # TD errors: -0.05 + 0.5 x 0.25 - 0.5 = -0.425 and 4.025 - 0.25 = 3.775. A1 = -0.425 + 0.25 x 3.775 = 0.51875.
    # The last epoch's ratios are 1.5 and 0.5; both advantages are above 0, so that only the first is clipped at 1.2.
    (row,) = rows_of(TWO, computed(), [FIRST_EPOCH, LAST_EPOCH])
    assert close(row.learner_logprobs, [-1.0, -0.5]) and close(row.logprobs, [-1.0, -0.5])
    assert close(row.entropies, [1.25, 0.75])
    assert close(row.token_rewards, [-0.05, 4.025])
    assert close(row.advantages, [0.51875, 3.775])
    assert close(row.values, [0.5, 0.25])
    assert close(row.returns, [1.01875, 4.025])
    assert close(td_errors(row.token_rewards, row.values, row.action_mask, 0.5), [-0.425, 3.775])
    assert close(row.ratios, [1.5, 0.5])
    assert row.clipped.dtype == np.bool_ and row.clipped.tolist() == [True, False]


def test_the_waterfall_ends_at_the_return_that_the_estimator_saw() -> None:
    (row,) = rows_of(TWO, computed(), [FIRST_EPOCH])
    assert row.shaping is not None
    assert [(step.name, step.kind, step.value) for step in row.shaping.steps] == [
        ("a", "part", 2.0),
        ("b", "part", 1.0),
        ("scale", "scale", 3.0),
        ("clip", "clip", -1.0),
        ("length", "penalty", -0.5),
        ("overlong", "penalty", -0.5),
        ("kl", "kl", pytest.approx(-0.025, abs=1e-6)),
    ]
    assert row.shaping.total == 3.0
    seen = float(row.token_rewards.astype(np.float64).sum())
    assert row.shaping.undiscounted_return == seen == pytest.approx(3.975)
    assert sum(step.value for step in row.shaping.steps) == seen


@pytest.mark.parametrize("seed", range(20))
def test_it_does_whatever_the_numbers_are(seed: int) -> None:
    """Of numbers that float32 does not hold, and of an estimator's own sum."""
    random = np.random.default_rng(seed)
    ids = list(range(1, 4))
    rollouts = [rollout(0, ids, random.normal(size=3).tolist(), [True, bool(seed % 2), True]) for _ in range(4)]
    weighted = [dict(zip("abc", random.normal(0, 10, 3).tolist(), strict=True)) for _ in rollouts]
    scores = tuple(Score(sum(each.values()), {}, weighted=each) for each in weighted)
    responses = responses_of(*rollouts, scores=scores)
    logprobs = torch.from_numpy(random.normal(size=(4, 4)).astype(np.float32))
    known = LogprobsAndValues(logprobs, logprobs + 0.3 * logprobs.roll(1), None, entropies=logprobs)
    online = PPO.model_copy(update={"estimator": Rloo()})
    rows = rows_of(responses, known, [forward_at(logprobs.tolist(), logprobs.tolist())], online)
    returns = []
    for row in rows:
        assert row.shaping is not None
        returns.append(sum(step.value for step in row.shaping.steps))
        seen = row.token_rewards[row.action_mask].astype(np.float64).sum()
        assert returns[-1] == pytest.approx(seen, rel=3e-6, abs=3e-6)
    # RLOO's advantage of each is n / (n - 1) times its return less the mean.
    expected = (np.array(returns) - np.mean(returns)) * 4 / 3
    assert [row.advantages[0] for row in rows] == pytest.approx(expected.tolist(), rel=1e-5, abs=1e-5)


def test_a_shut_gate_takes_all_parts_off_again() -> None:
    shut = Score(0.0, {"a": 1.0, "b": 0.0}, weighted={"a": 2.0, "b": 0.0}, shut_gate="b")
    (row,) = rows_of(replace(TWO, scores=(shut,)), computed(), [FIRST_EPOCH])
    assert row.shaping is not None and row.shaping.total == 0.0
    assert [(step.name, step.kind, step.value) for step in row.shaping.steps][:3] == [
        ("a", "part", 2.0),
        ("b", "part", 0.0),
        ("b", "gate", -2.0),
    ]


def test_a_reward_that_is_one_thing_has_one_part_and_no_step_that_changed_nothing() -> None:
    plain = PPO.model_copy(update={"shaping": ShapingSettings()})
    same = computed(ref_logprobs=torch.tensor([OWN]))
    (row,) = rows_of(replace(TWO, scores=(Score(3.0, {"raw": 7.0}),)), same, [FIRST_EPOCH], plain)
    assert row.shaping is not None and row.shaping.undiscounted_return == 3.0
    assert [(step.name, step.kind, step.value) for step in row.shaping.steps] == [("reward", "part", 3.0)]


def test_parts_that_are_standardised_add_their_places() -> None:
    standardised = {"a": torch.tensor([0.5]), "b": torch.tensor([-1.25])}
    (row,) = rows_of(TWO, computed(), [FIRST_EPOCH], standardised=standardised)
    assert row.shaping is not None and row.shaping.total == -0.75
    assert [(step.name, step.value) for step in row.shaping.steps][:3] == [("a", 0.5), ("b", -1.25), ("scale", -0.75)]


def test_a_step_that_took_the_samplers_has_the_learners_of_what_it_probed_and_entropies_by_the_update() -> None:
    both = responses_of(TWO.rollouts[0], rollout(1, [7, 2], OWN[1:], [True, True]), scores=(SCORE, SCORE))
    one = {name: numbers for name, numbers in vars(computed()).items() if numbers is not None}
    twice = {name: torch.cat([numbers] * 2) for name, numbers in one.items()}
    probed = ComparedRows(np.array([1]), torch.tensor([[0.0, -1.01, -0.51]]))
    known = LogprobsAndValues(**twice | {"entropies": None, "probed": probed})
    first = forward_at([OWN] * 2, [[0.0, 1.0, 2.0], [0.0, 3.0, 4.0]])
    last = forward_at([OWN] * 2, [[0.0, 9.0, 9.0]] * 2)
    rows = rows_of(both, known, [first, last])
    assert rows[0].learner_logprobs.tolist() == [] and close(rows[1].learner_logprobs, [-1.01, -0.51])
    assert close(rows[0].entropies, [1.0, 2.0]) and close(rows[1].entropies, [3.0, 4.0])


def test_what_is_left_out_has_no_numbers_of_the_update() -> None:
    """Of a response that was cut and is masked, and of one that dynamic sampling dropped; one between has a hole."""
    cut = replace(rollout(0, [7, 2], OWN[1:], [True, True]), finish_reason="length")
    holed = rollout(1, [7, 3, 2], [-1.0, 0.0, -0.5], [True, False, True])
    dropped = ((rollout(2, [6], [-0.5], [True]), SCORE),)
    responses = responses_of(cut, holed, scores=(SCORE, SCORE), dropped=dropped)
    logprobs = torch.tensor([[0.0, -1.0, -0.5, 0.0], [0.0, -1.0, 0.0, -0.5]])
    known = LogprobsAndValues(logprobs, logprobs, logprobs * 0, entropies=-logprobs)
    online = PPO.model_copy(update={"mask_truncated": True})
    rows = rows_of(responses, known, [forward_at(logprobs.tolist(), logprobs.tolist())], online)
    of_update = ("advantages", "returns", "ratios", "clipped")
    assert [[len(getattr(row, name)) for name in of_update] for row in rows] == [[0] * 4, [3] * 4, [0] * 4]
    assert [len(row.token_rewards) for row in rows] == [2, 3, 0]
    assert rows[1].ratios.tolist() == [1.0, 0.0, 1.0] and rows[1].clipped.tolist() == [False] * 3
    assert rows[2].dropped == "flat" and rows[2].shaping is None and rows[2].learner_logprobs.tolist() == []


@pytest.mark.parametrize(
    ("estimator", "advantages"), [(Distillation(form="sampled"), [-1.0, 0.25]), (Distillation(), [])]
)
def test_of_distillation_the_only_step_is_the_teachers(estimator: Estimator, advantages: list[float]) -> None:
    # log teacher - log policy: -2 + 1 and -0.25 + 0.5. What the reward said is not learnt from.
    graded = TeacherLogprobs(torch.tensor([0]), torch.tensor([[0.0, -2.0, -0.25]]))
    online = PPO.model_copy(update={"estimator": estimator, "kl": FixedKl(coefficient=0.0)})
    forwards = [FIRST_EPOCH] if advantages else []
    (row,) = rows_of(TWO, computed(values=None, graded=graded), forwards, online)
    assert close(row.teacher_logprobs, [-2.0, -0.25]) and close(row.token_rewards, [-1.0, 0.25])
    assert close(row.advantages, advantages) and len(row.ratios) == len(advantages)
    assert row.shaping is not None
    assert [(step.kind, step.value) for step in row.shaping.steps] == [("teacher", -0.75)]
    assert (row.shaping.total, row.shaping.undiscounted_return) == (0.0, -0.75)
