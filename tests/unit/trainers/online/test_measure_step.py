"""What a step measures, by hand: entropy, repetition, the gold reward, staleness, and how far the sampler is off."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from plumbob.reward.gold_reward import GOLD_PART
from plumbob.reward.scorer import Score
from plumbob.rollout.rollout_records import Rollout, SampleRequest
from plumbob.trainers.online.collection.collector import StepResponses
from plumbob.trainers.online.experience import LogprobsAndValues
from plumbob.trainers.online.measure_step import (
    gold_reward,
    kinds_of_failures,
    measure_step,
    part_metrics,
    repeated_share,
)
from plumbob.trainers.online.ranks.token_metrics import TokenMetrics, measure_tokens
from plumbob.trainers.online.step_metrics import ExperienceStats, RoundMetrics
from plumbob.trainers.online.trajectories import collate_rollouts

GRID = torch.arange(12.0).reshape(3, 4)


def response(prompt: list[int], tokens: list[int], mask: list[bool]) -> Rollout:
    request = SampleRequest("p", "g", 0, 0, "", np.array(prompt, np.int32))
    zeros = np.zeros(len(tokens), np.float32)
    ids = np.array(tokens, np.int32)
    return Rollout(request, "stop", "", ids, zeros, zeros.astype(np.int32), np.array(mask, np.bool_), "w")


def test_entropy_repetition_and_the_gold_reward_of_one_step() -> None:
    rollouts = (
        response([1], [7, 8], [True, True]),
        response([1, 1], [7, 8], [True, True]),
        response([1], [9], [True]),
        response([1], [4, 5], [True, False]),
    )
    logprobs = torch.tensor([[0, -1, -2, 99], [0, 99, -3, -4], [0, -5, 99, 99], [0, -6, 99, 99]], dtype=torch.float32)
    scores = tuple(Score(0.0, {GOLD_PART: judged}) for judged in (1.0, 2.0, 3.0, 6.0))
    computed = LogprobsAndValues(logprobs=logprobs, ref_logprobs=logprobs, values=None)
    # Actions: 1 + 2, 3 + 4, 5 and 6 are 21 nats over 6 tokens. Two of four responses are the same; gold's mean: 3.
    assert (metrics_of(rollouts, computed, 0).entropy, repeated_share(rollouts)) == (3.5, 0.5)
    assert gold_reward(scores) == 3.0
    assert gold_reward([Score(0.0, {}) for _ in scores]) is None


def metrics_of(rollouts: Sequence[Rollout], computed: LogprobsAndValues, version: int) -> TokenMetrics:
    return measure_tokens(collate_rollouts(rollouts, 0), computed, version)


def rollout(place: int, prompt: list[int], response: list[int]) -> Rollout:
    request = SampleRequest(f"p{place}", f"g{place}", 0, 9, "q", np.array(prompt, np.int32))
    ids = np.array(response, np.int32)
    return Rollout(request, "stop", "a", ids, -ids / 10, ids * 0 + 4, ids > 0, "rollout-0")


def test_staleness_counts_the_tokens_that_the_policy_wrote() -> None:
    # Versions 4, 4, 3 and 4, 2; the policy did not write the token of version 2. Version 4 learns from them.
    first, second = rollout(0, [5], [6, 7, 2]), rollout(1, [5], [6, 3])
    first = replace(first, versions=np.array([4, 4, 3], np.int32))
    second = replace(second, versions=np.array([4, 2], np.int32), action_mask=np.array([True, False]))
    found = metrics_of([first, second], LogprobsAndValues(GRID[:2], GRID[:2], None), 4)
    # They are 0, 0, 1 and 0 behind.
    assert (found.staleness_mean, found.staleness_max) == (0.25, 1.0)


def test_sampler_and_learner_are_compared_on_tokens_of_one_version() -> None:
    # The sampler's log-probs are -0.6, -0.7 and -0.2, the learner's lower by 0.1, 0.3 and 9.
    aged = replace(rollout(0, [5], [6, 7, 2]), versions=np.array([4, 4, 3], np.int32))
    computed = LogprobsAndValues(torch.tensor([[0.0, -0.7, -1.0, -9.2]]), GRID[:1], None)
    assert metrics_of([aged], computed, 4).sampler_gap_fresh == pytest.approx((0.1 + 0.3) / 2)
    assert metrics_of([aged], computed, 5).sampler_gap_fresh == 0.0


def test_a_step_by_its_names_on_disk() -> None:
    # Prompt 5, then 6, 7, 2: log-probs -0.6, -0.7 and -0.2 by the sampler; the learner has -0.5, -0.7 and -0.6.
    # The last token is of version 3, and the step learns at version 4: gaps 0.1 and 0 of its own tokens.
    aged = replace(rollout(0, [5], [6, 7, 2]), versions=np.array([4, 4, 3], np.int32))
    logprobs = torch.tensor([[0.0, -0.5, -0.7, -0.6]])
    responses = StepResponses((aged,), (Score(2.0, {GOLD_PART: 0.25}),), (), 3, 1, sampler_idle_s=1.5)
    stats = ExperienceStats(1, 0, 3, 2.0, 0.0, 0.125, 1.75, 0.0, 3.0, 0.2, 0.4, 0.0, None)
    update = {"policy_loss": -0.5, "update_kl": 0.01, "policy_grad_norm": 2.0}
    update |= {"kl_coefficient": 0.05, "learning_rate": 1e-4}
    of_tokens = metrics_of([aged], LogprobsAndValues(logprobs, logprobs, None), 4)
    found = measure_step(responses, of_tokens, stats, update, 6.0, RoundMetrics(3, 0.5, 1))
    assert found.on_disk() == pytest.approx(
        {
            **{"num_answers": 1, "num_empty": 0, "num_tokens": 3, "reward": 2.0, "reward_std": 0.0, "kl": 0.125},
            **{"return_mean": 1.75, "missing_eos_share": 0.0, "answer_tokens_mean": 3.0, "importance_cut_share": 0.0},
            **{"sampler_gap_mean": 0.2, "sampler_gap_max": 0.4, "sampler_gap_fresh": 0.05, "sampler_idle_s": 1.5},
            **{"policy_loss": -0.5, "update_kl": 0.01, "policy_grad_norm": 2.0},
            **{"kl_coefficient": 0.05, "learning_rate": 1e-4, "entropy": 0.6, "repeated_share": 0.0},
            **{"num_rounds": 3, "num_dropped_groups": 0.5, "num_flat_groups": 1, "gold_reward": 0.25},
            **{"staleness_mean": 1 / 3, "staleness_max": 1, "tokens_per_s": 0.5},
        }
    )
    assert all(isinstance(value, float) for value in found.on_disk().values())


def test_what_a_part_failed_on_is_counted_and_told_by_its_kind() -> None:
    scores = [
        Score(1.0, {"mine": 1.0, "model": 3.0}),
        Score(0.0, {"mine": 0.0, "model": 3.0}, {"mine": "time-out: it took more than 1 s"}),
        Score(0.0, {"mine": 0.0, "model": 3.0}, {"mine": "KeyError: 'a'"}),
        Score(0.0, {"mine": 0.0, "model": 3.0}, {"mine": "KeyError: 'b'"}),
    ]
    rollouts: Any = (None,) * 4
    # A group in which it failed on all is flat, and left out of what is learnt from: it counts all the same.
    dropped: Any = ((None, scores[2]), (None, scores[3]))
    found = part_metrics(StepResponses(rollouts, tuple(scores), dropped, 1, 0))
    assert found["reward_failures/mine"] == 5.0 and "reward_failures/model" not in found
    assert found["reward_mean/mine"] == 0.25 and found["reward_std/model"] == 0.0
    reasons = [reason for score in scores for reason in score.failures.values()]
    assert kinds_of_failures(reasons) == "2 x KeyError, 1 x time-out"


def test_what_a_judge_cost_is_summed_over_all_responses() -> None:
    scores = [
        Score(1.0, {"polite": 1.0, "polite/prompt_tokens": tokens, "polite/completion_tokens": 5.0})
        for tokens in (30.0, 0.0)
    ]
    failed = Score(0.0, {"polite": 0.0}, {"polite": "ConnectError: gone"})
    rollouts: Any = (None,) * 3
    dropped: Any = ((None, scores[0]),)
    found = part_metrics(StepResponses(rollouts, (*scores, failed), dropped, 1, 0))
    assert found["reward_sum/polite/prompt_tokens"] == 60.0 and found["reward_sum/polite/completion_tokens"] == 15.0
    assert found["reward_mean/polite/prompt_tokens"] == 15.0 and "reward_sum/polite" not in found
