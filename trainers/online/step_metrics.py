"""What one step of online reinforcement learning measures: a typed record, and its names on disk."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self, get_args

NAMES_ON_DISK = {
    **{"score_mean": "reward", "score_std": "reward_std", "kl_mean": "kl"},
    **{"num_responses": "num_answers", "response_tokens_mean": "answer_tokens_mean"},
}
"""Of fields that `metrics.jsonl` has under another name."""

OLD_NAMES = {"judge_reward": "gold_reward"}
"""Of metrics in the lines of older runs."""

ALARM = "alarm_"
"""Before the name of a monitor, in the line of a step that it shows at."""


@dataclass(frozen=True)
class ExperienceStats:
    """A step's batch before the update. Rows without an action count in `num_empty` and nowhere else.

    Attributes:
        num_responses: rows with at least one action token.
        num_empty: rows without one: no reward, no signal.
        num_tokens: action tokens.
        score_mean, score_std: of the scorer's total, before shaping; None where nothing scores.
        kl_mean: KL of a whole response from the reference in nats, the k1 estimate, mean over responses.
        return_mean: reward of a whole response, shaped, with the KL penalty where it is in the reward, undiscounted; of
            distillation, log teacher - log policy of the whole response.
        missing_eos_share: of the responses, those cut at the length limit.
        response_tokens_mean: action tokens of a response.
        sampler_gap_mean, sampler_gap_max: |log pi_learner - log pi_sampler| in nats, over the action tokens of the
            rows whose log-probs the learner computed before the update: all, or those that it probed the sampler's by.
        importance_cut_share: of the action tokens, those whose importance ratio was held at the cap, or masked.
        explained_variance: of the critic, 1 - Var(return - value) / Var(return) over action tokens; 0 where returns
            are all equal, None where there is no critic.
    """

    num_responses: int
    num_empty: int
    num_tokens: int
    score_mean: float | None
    score_std: float | None
    kl_mean: float
    return_mean: float
    missing_eos_share: float
    response_tokens_mean: float
    sampler_gap_mean: float
    sampler_gap_max: float
    importance_cut_share: float
    explained_variance: float | None


@dataclass(frozen=True)
class RoundMetrics:
    """What dynamic sampling did: rounds, groups left out for want of spread, and groups learnt from all the same."""

    num_rounds: int
    num_dropped_groups: float
    num_flat_groups: int


@dataclass(frozen=True)
class StepMetrics:
    """One step, whose update made the next policy version of `version`, the one that it began with.

    Attributes:
        experience: of the batch, before the update.
        kl_coefficient, learning_rate: of this step.
        policy_grad_norm: before clipping, mean over the optimizer steps; None where nothing was measured.
        update_kl: distance of the policy to the one before the step, in nats a token; None likewise.
        rounds: None without dynamic sampling.
        entropy: the mean of -log pi of a sampled token, in nats, which estimates the policy's entropy at its
            temperature.
        repeated_share: of the responses, those that stand in the step more than once, whatever their prompts.
        gold_reward: mean of the gold reward; None where there is none.
        staleness_mean, staleness_max: how many versions the tokens are behind `version`.
        sampler_gap_fresh: mean |log pi_learner - log pi_sampler| in nats over those of these tokens that `version`
            itself made; 0 without any. Both are of one policy there, and ought to agree; older tokens differ by what
            was learnt since.
        sampler_gap_rms: root mean square of the gap over the tokens of the step's first minibatch, by the update's own
            forward, by their loss weights; None in a step that did not take the sampler's log-probs.
        sampler_idle_s: seconds since the step before for which the samplers had nothing to do.
        tokens_per_s: action tokens, by all seconds since the step before.
        objective: what else the update measured, by the objective's own names, such as `policy_loss`.
    """

    experience: ExperienceStats
    kl_coefficient: float
    learning_rate: float
    policy_grad_norm: float | None
    update_kl: float | None
    rounds: RoundMetrics | None
    entropy: float
    repeated_share: float
    gold_reward: float | None
    staleness_mean: float
    staleness_max: float
    sampler_gap_fresh: float
    sampler_gap_rms: float | None
    sampler_idle_s: float
    tokens_per_s: float
    objective: Mapping[str, float] = field(default_factory=dict)

    def on_disk(self) -> dict[str, float]:
        """By the names of `metrics.jsonl`: what was not measured has none."""
        own = {name: value for name, value in vars(self).items() if name not in ("experience", "rounds", "objective")}
        rounds = {} if self.rounds is None else vars(self.rounds)
        named = {NAMES_ON_DISK.get(name, name): value for name, value in vars(self.experience).items()}
        known = named | dict(self.objective) | own | rounds
        return {name: float(value) for name, value in known.items() if value is not None}

    @classmethod
    def from_disk(cls, metrics: Mapping[str, float]) -> Self:
        """The record that `on_disk` made a line of; NaN where a line of an older version lacks what every step has."""
        left = {OLD_NAMES.get(name, name): value for name, value in metrics.items() if not name.startswith(ALARM)}
        parts: dict[str, Any] = {"experience": ExperienceStats(**_take_fields(ExperienceStats, left))}
        rounds = _take_fields(RoundMetrics, left)
        parts["rounds"] = None if math.isnan(rounds["num_rounds"]) else RoundMetrics(**rounds)
        own = _take_fields(cls, left, without=("experience", "rounds", "objective"))
        return cls(**parts, **own, objective=left)


def sampler_idle_s(metrics: Mapping[str, float]) -> float | None:
    """`StepMetrics.sampler_idle_s` of a line's metrics; None of a stage that samples nothing."""
    return None if "sampler_idle_s" not in metrics else StepMetrics.from_disk(metrics).sampler_idle_s


def _take_fields(record: type[Any], left: dict[str, float], without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The record's fields, taken out of `left`: None is what may be None, and is not there; NaN, what must not."""
    found = {}
    for part in fields(record):
        if part.name not in without:
            missing = None if type(None) in get_args(part.type) else math.nan
            found[part.name] = left.pop(NAMES_ON_DISK.get(part.name, part.name), missing)
    return found
