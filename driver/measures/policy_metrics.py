"""Responses of policies to the same prompts, and what they amount to: rewards, win rates, pass@k, with intervals."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbob.core.statistics import Interval, compare, mean_interval, pass_at_k
from plumbob.rollout.rollout_records import Rollout

Metrics = dict[str, Any]


@dataclass(frozen=True)
class Responses:
    """One policy's responses. Arrays are [prompts, samples].

    Attributes:
        rollouts: prompt by prompt, in order.
        scores: the reward model's.
        gold: of the gold reward; None where there is none.
        num_failed: those that a part of the reward could not score, and gave what was set for that.
        parts: of each response the numbers behind its score, in the order of `rollouts`.
    """

    rollouts: tuple[Rollout, ...]
    scores: NDArray[np.float64]
    gold: NDArray[np.float64] | None
    num_failed: int = field(default=0, kw_only=True)
    parts: tuple[Mapping[str, float], ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class ComparedResponses(Responses):
    """Beside a baseline.

    Attributes:
        kl: log pi - log pi_baseline of each whole response, in nats; its mean is the KL from the baseline.
    """

    kl: NDArray[np.float64]


def response_metrics(policy: Responses) -> Metrics:
    """What a policy's responses are by themselves, whatever they are compared with."""
    metrics: Metrics = {
        "reward": float(policy.scores.mean()),
        "answer_tokens": float(np.mean([rollout.action_mask.sum() for rollout in policy.rollouts])),
        "missing_eos_share": float(np.mean([rollout.finish_reason != "stop" for rollout in policy.rollouts])),
    }
    if policy.num_failed:
        metrics["reward_failures"] = policy.num_failed
    return metrics if policy.gold is None else metrics | {"gold_score": float(policy.gold.mean())}


def policy_metrics(policy: Responses, baseline: Responses) -> Metrics:
    """A policy's metrics, those against the baseline with their 95% intervals; the gold reward's where there is one."""
    reward = compare(policy.scores, baseline.scores)
    metrics = response_metrics(policy) | {
        "reward_gain": reward.gain.mean,
        "reward_gain_ci95": reward.gain.ci95,
        "win_rate": reward.win_rate.mean,
        "win_rate_ci95": reward.win_rate.ci95,
    }
    if isinstance(policy, ComparedResponses):
        metrics |= {"kl": _mean(policy.kl).mean, "kl_ci95": _mean(policy.kl).ci95}
    metrics |= {"num_prompts": len(policy.scores)}
    if policy.gold is not None and baseline.gold is not None:
        gold = compare(policy.gold, baseline.gold)
        metrics |= {
            "gold_gain": gold.gain.mean,
            "gold_gain_ci95": gold.gain.ci95,
            "win_rate": gold.win_rate.mean,
            "win_rate_ci95": gold.win_rate.ci95,
            "reward_win_rate": reward.win_rate.mean,
        }
    return metrics


def win_rates(policies: Mapping[str, Responses]) -> dict[str, dict[str, Metrics]]:
    """Policy -> another one -> the share of prompts that it wins by its scores, with its 95% interval.

    A tie is half a win, so that the two directions of a pair sum to 1.
    """
    found: dict[str, dict[str, Metrics]] = {name: {} for name in policies}
    for one, other in itertools.permutations(policies, 2):
        rate = compare(policies[one].scores, policies[other].scores).win_rate
        found[one][other] = {"win_rate": rate.mean, "ci95": rate.ci95}
    return found


def pass_metrics(policy: Responses, pass_at: Sequence[int], right_from: float) -> Metrics:
    """The chance that one of k responses is right, for each k, with its 95% interval over prompts.

    Args:
        right_from: a response is right whose score is at least this.
    """
    num_prompts, num_samples = policy.scores.shape
    num_right = (policy.scores >= right_from).sum(axis=1)
    metrics: Metrics = {"num_prompts": num_prompts} if pass_at else {}
    for k in pass_at:
        chances = pass_at_k(num_right, num_samples, k)
        metrics[f"pass_at_{k}"] = float(chances.mean())
        if num_prompts > 1:
            metrics[f"pass_at_{k}_ci95"] = [min(max(end, 0.0), 1.0) for end in mean_interval(chances).ci95]
    return metrics


def _mean(values: NDArray[np.float64]) -> Interval:
    """Over prompts, the samples of one averaged."""
    return mean_interval(values.mean(axis=1))
