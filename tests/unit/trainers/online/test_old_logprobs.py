"""Whose log-probs an update begins with: the sampler's while they hold, with a real learner and a real sampler."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from plumbob.rollout.token_numbers import td_errors
from tests.support.learner_ranks import Ranks
from tests.support.online_steps import NUM_STEPS, SamplerFault, play
from tests.support.small_run import Left
from tests.support.tiny_policy import write_policy


@dataclass(frozen=True)
class PlayedLoop(Left):
    """A run, and what was said."""

    messages: list[str]

    @property
    def lines(self) -> list[dict[str, float]]:
        return [line["metrics"] for line in self.metrics]

    @property
    def took_sampler(self) -> list[bool]:
        """Of each step, whether it says that it took the sampler's log-probs."""
        return ["sampler_gap_rms" in line for line in self.lines]

    @property
    def learnt_above_sampled(self) -> list[float]:
        """Of each step: how far the log-probs that were learnt with are above those that the sampler gave, on average.

        Entropy is the negative mean of the former, and the journal has the latter.
        """
        sampled: list[list[float]] = [[] for _ in range(NUM_STEPS)]
        for step, row in self.journal:
            sampled[step - 1] += row.logprobs.tolist()
        return [-line["entropy"] - float(np.mean(own)) for line, own in zip(self.lines, sampled, strict=True)]

    @property
    def weights(self) -> bytes:
        return (self.last_checkpoint / "learner-0.safetensors").read_bytes()

    @property
    def trusts_sampler(self) -> bool:
        """As the last checkpoint remembers it."""
        (state,) = self.last_checkpoint.glob("*.json")
        found: bool = json.loads(state.read_text())["state"]["trusts_sampler"]
        return found


@pytest.fixture(scope="module")
def played(one_rank: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., PlayedLoop]:
    model = write_policy(tmp_path_factory.mktemp("policy"))

    def run(fault: SamplerFault | None = None, **changes: Any) -> PlayedLoop:
        folder = tmp_path_factory.mktemp("run")
        found = one_rank.run(play, model, folder, False, 0, "free", changes, fault)[0]
        return PlayedLoop(folder, messages=found["messages"])

    return run


def test_a_sampler_that_agrees_is_taken_at_its_word(played: Callable[..., PlayedLoop]) -> None:
    found = played()
    assert found.took_sampler == [False, True, True, True] and found.messages == [] and found.trusts_sampler
    for line in found.lines:
        assert 0 < line["sampler_gap_mean"] <= line["sampler_gap_max"] < 1e-4
        assert line.get("sampler_gap_rms", 0.0) < 1e-4
    assert found.learnt_above_sampled == pytest.approx([0] * NUM_STEPS, abs=1e-6)
    # The learner's own give the same to rounding: every figure of the last step, whose responses are the same.
    own = played(old_logprobs="learner")
    check_tokens(found, own)
    assert own.took_sampler == [False] * NUM_STEPS
    for name in ("reward", "kl", "policy_loss", "policy_grad_norm", "value_loss"):
        assert found.lines[-1][name] == pytest.approx(own.lines[-1][name], rel=1e-3, abs=1e-5), name


def check_tokens(found: PlayedLoop, own: PlayedLoop) -> None:
    """What the journal has of each token, whoever's log-probs the step took; of two minibatches the first is exact."""
    probed, firsts = [], []
    for (step, row), (_, other) in zip(found.journal, own.journal, strict=True):
        assert row.shaping is not None and row.token_ids.tolist() == other.token_ids.tolist()
        seen = row.token_rewards.astype(np.float64).sum()
        assert row.shaping.undiscounted_return == pytest.approx(seen, abs=1e-9)
        assert sum(each.value for each in row.shaping.steps) == pytest.approx(seen, abs=1e-5)
        # With gamma 1 and lambda 0.95 the errors add up to what the critic learns, less what it said.
        errors = td_errors(row.token_rewards, row.values, row.action_mask, 1.0)
        advantages = [sum(errors[t:] * 0.95 ** np.arange(len(errors) - t)) for t in range(len(errors))]
        assert row.returns - row.values == pytest.approx(advantages, abs=1e-5)
        assert len(row.ratios) == len(row.clipped) == len(row.advantages) == len(row.entropies) == len(row.token_ids)
        assert row.clipped.tolist() == ((row.ratios - 1) * np.sign(row.advantages) > 0.2).tolist()
        is_first = np.abs(row.ratios - 1).max() < 1e-4  # Of the first minibatch: nothing had moved.
        firsts.append(is_first)
        assert row.entropies == pytest.approx(other.entropies, abs=1e-3 if is_first or step == 1 else 1.0)
        assert len(other.learner_logprobs) == len(row.token_ids)
        if step > 1:
            probed.append(len(row.learner_logprobs) > 0)
        gap = row.learner_logprobs - row.logprobs[: len(row.learner_logprobs)]
        assert len(gap) == 0 or np.abs(gap).max() < 1e-4
    assert 0 < np.mean(probed) < 1
    assert 0.5 <= np.mean(firsts) < 1


def test_one_that_was_always_off_is_never_learnt_from(played: Callable[..., PlayedLoop]) -> None:
    found = played(SamplerFault(from_step=0))
    own = played(SamplerFault(from_step=0), old_logprobs="learner")
    assert found.weights == own.weights and found.untimed == own.untimed
    assert found.took_sampler == [False] * NUM_STEPS and not found.trusts_sampler
    assert found.learnt_above_sampled == pytest.approx([0.01] * NUM_STEPS, abs=1e-5)
    assert [line["sampler_gap_mean"] for line in found.lines] == pytest.approx([0.01] * NUM_STEPS, abs=1e-5)
    (message,) = found.messages
    assert message.startswith("step 1: log-probs of sampler and learner are 0.01 nats apart, more than 0.0001: ")
    assert own.messages == []


def test_one_that_goes_wrong_is_noticed_before_it_is_learnt_from(played: Callable[..., PlayedLoop]) -> None:
    found = played(SamplerFault(from_step=2))
    assert found.took_sampler == [False, True, False, False] and not found.trusts_sampler
    assert found.learnt_above_sampled == pytest.approx([0, 0, 0.01, 0.01], abs=1e-5)
    (message,) = found.messages
    assert message.startswith("step 3: ")


def test_what_the_probe_misses_the_update_itself_sees(played: Callable[..., PlayedLoop]) -> None:
    # One minibatch is the whole step, so that its forward is of every row. The probe sees nothing of those not probed.
    found = played(SamplerFault(from_step=1, is_hidden=True), minibatch_size=4)
    assert found.took_sampler == [False, True, False, False] and not found.trusts_sampler
    assert found.lines[1]["sampler_gap_max"] < 1e-4 < 1e-3 < found.lines[1]["sampler_gap_rms"] < 0.01
    assert found.lines[2]["sampler_gap_max"] == pytest.approx(0.01, abs=1e-5)
    (message,) = found.messages
    assert message.startswith("step 2: ")
