"""Measuring a step: what its responses, their tokens and its update amount to."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from plumbob.reward.gold_reward import GOLD_PART
from plumbob.reward.scorer import Score
from plumbob.reward.services.judge_answers import TOKEN_COUNTS
from plumbob.rollout.rollout_heads import Response
from plumbob.trainers.online.collection.collector import StepResponses
from plumbob.trainers.online.ranks.token_metrics import TokenMetrics
from plumbob.trainers.online.step_metrics import ExperienceStats, RoundMetrics, StepMetrics


def measure_step(
    responses: StepResponses,
    of_tokens: TokenMetrics,
    stats: ExperienceStats,
    update: Mapping[str, float],
    seconds: float,
    rounds: RoundMetrics | None,
) -> StepMetrics:
    """The record of a step.

    Args:
        update: what the learners measured, and the step's `kl_coefficient` and `learning_rate`.
        of_tokens: of the step's tokens.
        seconds: since the step before.
    """
    rollouts, objective = responses.rollouts, dict(update)
    return StepMetrics(
        experience=stats,
        kl_coefficient=objective.pop("kl_coefficient"),
        learning_rate=objective.pop("learning_rate"),
        policy_grad_norm=objective.pop("policy_grad_norm", None),
        update_kl=objective.pop("update_kl", None),
        rounds=rounds,
        entropy=of_tokens.entropy,
        repeated_share=repeated_share(rollouts),
        gold_reward=gold_reward(responses.scores),
        staleness_mean=of_tokens.staleness_mean,
        staleness_max=of_tokens.staleness_max,
        sampler_gap_fresh=of_tokens.sampler_gap_fresh,
        sampler_gap_rms=objective.pop("sampler_gap_rms", None),
        sampler_idle_s=responses.sampler_idle_s,
        tokens_per_s=stats.num_tokens / seconds,
        objective=objective | part_metrics(responses) | episode_metrics(responses),
    )


def repeated_share(rollouts: Sequence[Response]) -> float:
    """Of the responses, those that stand in the step more than once, whatever their prompts."""
    times = Counter(rollout.token_digest for rollout in rollouts)
    return sum(count for count in times.values() if count > 1) / len(rollouts)


def gold_reward(scores: Sequence[Score]) -> float | None:
    """Mean of the gold reward, where there is one."""
    gold_scores = [score.parts[GOLD_PART] for score in scores if GOLD_PART in score.parts]
    return sum(gold_scores) / len(gold_scores) if gold_scores else None


def part_metrics(responses: StepResponses) -> dict[str, float]:
    """Of each part of the reward, by its name: mean and standard deviation of its values over what is learnt from.

    And of all responses, those of groups that were left out too, how many it failed on, and the tokens of a judge.
    """
    scores = responses.scores
    names = dict.fromkeys(name for score in scores for name in score.parts if name != GOLD_PART)
    found: dict[str, float] = {}
    for name in names:
        values = np.array([score.parts[name] for score in scores if name in score.parts])
        found |= {f"reward_mean/{name}": float(values.mean()), f"reward_std/{name}": float(values.std())}
    for name, reasons in failures_by_part(all_scores(responses)).items():
        found[f"reward_failures/{name}"] = float(len(reasons))
    for name in (name for name in names if name.rpartition("/")[2] in TOKEN_COUNTS):
        found[f"reward_sum/{name}"] = sum(score.parts.get(name, 0.0) for score in all_scores(responses))
    return found


def episode_metrics(responses: StepResponses) -> dict[str, float]:
    """The policy's turns in an episode, their mean; and in how many episodes the environment failed. Nothing where no
    environment took part."""
    episodes = [rollout.episode for rollout in responses.all_rollouts if rollout.episode is not None]
    if not episodes:
        return {}
    return {
        "episode_turns": sum(episode.num_turns for episode in episodes) / len(episodes),
        "environment_failures": float(sum(episode.failure is not None for episode in episodes)),
    }


def all_scores(responses: StepResponses) -> list[Score]:
    """Also of the groups that were left out: where a part fails on a whole group, its rewards are all the same."""
    return [*responses.scores, *(score for _, score in responses.dropped)]


def failures_by_part(scores: Sequence[Score]) -> dict[str, list[str]]:
    """Part of the reward -> why it could not score, a reason for each response that it failed on."""
    found: dict[str, list[str]] = {}
    for score in scores:
        for name, reason in score.failures.items():
            found.setdefault(name, []).append(reason)
    return found


def kinds_of_failures(reasons: Sequence[str]) -> str:
    """How often which: `3 x time-out, 1 x ValueError`; the kind of a reason is what it says up to a colon."""
    counts = Counter(reason.partition(":")[0] for reason in reasons)
    return ", ".join(f"{count} x {kind}" for kind, count in counts.most_common())
