"""What is optimised online: estimators, policy surrogates (GSPO, CISPO, ...), KL, importance weights, shaping.

Each variant is one class with its `kind`; its equation and paper stand at its function in `trainers/`.
"""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from plumbob.configs.base import Count, Factor, LearningRate, NumTokens, Positive, PositiveOrZero, Settings
from plumbob.configs.settings.offline_objectives import DpoLoss, PreferenceLoss

Discount = Annotated[float, Field(gt=0, le=1)]

# ---------------------------------------------------------------------------------------------------------- advantages


class Gae(Settings):
    """PPO: a critic and generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438)."""

    kind: Literal["gae"] = "gae"
    gamma: Discount = 1.0
    """Discount of later rewards."""
    lam: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Between the critic alone (0) and the return alone (1)."""
    whiten: bool = True
    """Advantages get mean 0 and variance 1 over the batch."""
    value_learning_rate: LearningRate = 1e-3
    """The critic's."""
    value_clip_range: Positive | None = 0.2
    """How far an update may move a value; None does not clip."""


class ReinforcePlusPlus(Settings):
    """Return-to-go without a critic, normalised over the whole batch (Hu 2025, arXiv 2501.03262)."""

    kind: Literal["reinforce++"] = "reinforce++"
    gamma: Discount = 1.0
    """Discount of later rewards."""


class ReinforcePlusPlusBaseline(Settings):
    """The whole return less its group's mean, divided by the batch's standard deviation (arXiv 2501.03262)."""

    kind: Literal["reinforce++-baseline"] = "reinforce++-baseline"


class Rloo(Settings):
    """The whole return less the mean of the group's others (Ahmadian et al. 2024, arXiv 2402.14740)."""

    kind: Literal["rloo"] = "rloo"


class Grpo(Settings):
    """The whole return less its group's mean, over its group's standard deviation (Shao et al. 2024, 2402.03300)."""

    kind: Literal["grpo"] = "grpo"
    std_eps: Positive = 1e-4
    """Added to the group's standard deviation."""


class DrGrpo(Settings):
    """The whole return less its group's mean, divided by nothing (Liu et al. 2025, arXiv 2503.20783)."""

    kind: Literal["dr-grpo"] = "dr-grpo"


class Distillation(Settings):
    """On-policy distillation: a teacher grades each token of what the policy itself wrote, by KL(policy || teacher).

    Agarwal et al. 2023 (GKD, arXiv 2306.13649), Gu et al. 2023 (MiniLLM, arXiv 2306.08543); no reward is learnt from.
    """

    kind: Literal["distillation"] = "distillation"
    form: Literal["full", "sampled"] = "full"
    """`full`: the loss is the exact KL over the whole vocabulary at each token of a response; `sampled`: a policy
    gradient, whose advantage is log teacher - log policy of the token that was sampled."""
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of `sampled`: discount of what the tokens that follow are graded; 0 is the token's own KL, as `full` has it, and
    1 the KL of whole responses."""

    @model_validator(mode="after")
    def _check_gamma(self) -> Self:
        if self.form == "full" and self.gamma:
            raise ValueError(
                f"online.estimator.gamma={self.gamma:g} with online.estimator.form=full: its loss is of each token by "
                f"itself; set online.estimator.gamma=0, or online.estimator.form=sampled"
            )
        return self


class BestOfN(Settings):
    """Only the best response of each group is learnt, by its likelihood (RAFT, Dong et al. 2023, arXiv 2304.06767)."""

    kind: Literal["best-of-n"] = "best-of-n"


class OnlineDpo(Settings):
    """A loss of pairs, of each group the best response against the worst (Guo et al. 2024, arXiv 2402.04792)."""

    kind: Literal["online-dpo"] = "online-dpo"
    loss: PreferenceLoss = DpoLoss()


Estimator = Annotated[
    Gae | ReinforcePlusPlus | ReinforcePlusPlusBaseline | Rloo | Grpo | DrGrpo | BestOfN | OnlineDpo | Distillation,
    Field(discriminator="kind"),
]

RANKED = BestOfN | OnlineDpo
"""Estimators that rank the responses to one prompt, and learn one row of each group: the best, or a pair."""

GROUPED = ReinforcePlusPlusBaseline | Rloo | Grpo | DrGrpo | RANKED
"""Estimators that compare the responses to one prompt, of which there must be several."""


def algorithm_of(estimator: Estimator) -> str:
    """What people call the objective with that estimator: its kind, or `ppo` where it is PPO's own."""
    return algorithm_with(estimator.kind)


def algorithm_with(estimator_kind: str) -> str:
    """As `algorithm_of`, of the estimator's kind alone."""
    return "ppo" if estimator_kind == "gae" else estimator_kind


ALGORITHMS = frozenset(algorithm_with(one.model_fields["kind"].default) for one in get_args(get_args(Estimator)[0]))
"""What an online stage may be called."""


def critic_of(estimator: Estimator) -> Gae | None:
    """The settings of the critic that an estimator trains; None where it trains none."""
    return estimator if isinstance(estimator, Gae) else None


# ---------------------------------------------------------------------------------------------------- policy surrogate


class Clipped(Settings):
    """The clipped surrogate of PPO (Schulman et al. 2017, arXiv 1707.06347), token by token."""

    kind: Literal["clipped"] = "clipped"
    clip_range: Positive = 0.2
    """How far below 1, and above it, the ratio of new to old probability still earns."""
    clip_range_high: Positive | None = None
    """How far above 1 instead: clip-higher, 0.28 in DAPO (arXiv 2503.14476); None is `clip_range`."""
    dual_clip: Factor | None = None
    """Bound of the ratio where the advantage is negative; None has none."""

    @property
    def high(self) -> float:
        """How far above 1 the ratio still earns."""
        return self.clip_range if self.clip_range_high is None else self.clip_range_high


class Gspo(Settings):
    """The clipped surrogate with one ratio for a whole response (Zheng et al. 2025, arXiv 2507.18071)."""

    kind: Literal["gspo"] = "gspo"
    clip_range: Positive = 3e-4
    """How far below 1 the response's ratio, the geometric mean of its tokens', still earns."""
    clip_range_high: Positive = 4e-4
    """How far above 1."""


class Cispo(Settings):
    """The log-prob of each token, weighted by its ratio up to a bound (MiniMax 2025, arXiv 2506.13585).

    No token is left out: where the clipped surrogate stops pushing, this one pushes on, at the bound.
    """

    kind: Literal["cispo"] = "cispo"
    cap: Factor = 5.0
    """The largest ratio that weighs, the paper's 1 + epsilon."""


PolicyLoss = Annotated[Clipped | Gspo | Cispo, Field(discriminator="kind")]

# ------------------------------------------------------------------------------------------------------------------ KL


class KlPlacementSettings(Settings):
    """Where the divergence from the reference is paid for, and by which estimate (k1, k2, k3 of Schulman 2020)."""

    place: Literal["reward", "loss"] = "reward"
    """Taken off the reward, or added to the loss."""
    estimate: Literal["k1", "k2", "k3"] = "k1"
    """k1 in the reward; k2 or k3 in the loss."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.place == "loss" and self.estimate == "k1":
            raise ValueError(
                "online.kl.place=loss with online.kl.estimate=k1: its gradient is zero in expectation, so that nothing "
                "would hold the policy; set online.kl.estimate=k2 or k3, or online.kl.place=reward"
            )
        if self.place == "reward" and self.estimate != "k1":
            raise ValueError(
                f"online.kl.place=reward with online.kl.estimate={self.estimate}: as a reward it leads to a policy "
                "that is not the KL-regularised optimum, or to none; set online.kl.estimate=k1, or online.kl.place=loss"
            )
        return self


class FixedKl(KlPlacementSettings):
    kind: Literal["fixed"] = "fixed"
    coefficient: PositiveOrZero = 0.05
    """Of the KL."""


class AdaptiveKl(KlPlacementSettings):
    """Proportional controller on the measured KL (Ziegler et al. 2019, arXiv 1909.08593, section 2.2)."""

    kind: Literal["adaptive"] = "adaptive"
    coefficient: Positive = 0.05
    """Of the KL, in the first step."""
    target: Positive = 4.0
    """Mean KL of a whole response from the reference, in nats."""
    horizon: Count = 1000
    """Samples over which the coefficient changes by the factor 1 + clip(KL / target - 1, -0.2, 0.2)."""


KlPenalty = Annotated[FixedKl | AdaptiveKl, Field(discriminator="kind")]

# ---------------------------------------------------------------------------------------------- importance and shaping


class TruncatedImportance(Settings):
    """Tokens are weighted by min(pi_learner / pi_sampler, cap)."""

    kind: Literal["truncated"] = "truncated"
    cap: Positive = 2.0
    """The largest weight."""


class MaskedImportance(Settings):
    """Tokens are weighted by pi_learner / pi_sampler, those outside [low, high] by 0."""

    kind: Literal["masked"] = "masked"
    low: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """The smallest weight that counts."""
    high: Factor = 2.0
    """The largest weight that counts."""


class NoImportance(Settings):
    """Tokens that another arithmetic, or another version, sampled count as the learner's own."""

    kind: Literal["none"] = "none"


Importance = Annotated[TruncatedImportance | MaskedImportance | NoImportance, Field(discriminator="kind")]


class LengthPenaltySettings(Settings):
    """Each token past `free_tokens` costs `per_token`: length control."""

    free_tokens: NumTokens
    """Tokens that cost nothing."""
    per_token: Positive
    """What each further one costs."""


class OverlongPenaltySettings(Settings):
    """The soft overlong penalty (DAPO, Yu et al. 2025, arXiv 2503.14476, equation 13): it grows near the limit.

    The limit is `rollout.max_tokens`: a response of so many tokens pays all of `penalty`.
    """

    cache_tokens: NumTokens
    """Tokens before the limit over which it grows; a response that is shorter by so many pays nothing."""
    penalty: Positive = 1.0
    """Taken off at the limit."""


class ShapingSettings(Settings):
    """From the scorer's total to the response's reward: scaled, clipped, then the penalties taken off."""

    scale: Positive = 1.0
    """The scorer's total is multiplied by it."""
    clip: Positive | None = 5.0
    """Then cut to between -clip and clip; None does not. It is None by default where there are `reward.parts`: their
    scale is the user's, and calibrated scores have the variance 1."""
    missing_eos_penalty: PositiveOrZero = 1.0
    """Taken off where a response did not end."""
    length_penalty: LengthPenaltySettings | None = None
    overlong_penalty: OverlongPenaltySettings | None = None


class DynamicSamplingSettings(Settings):
    """Groups that the scorer rewards alike; other prompts are sampled in their place (arXiv 2503.14476).

    Looked at is the scorer's total as `online.shaping` scales and clips it, of the responses learnt from: a
    group that differs only in what length or a missing end costs has nothing to teach about the task, and would teach
    that.
    The paper has no KL. With one, prompts whose responses are all rewarded alike are no longer held to the reference.
    After `max_rounds` rounds of sampling the step is filled up with such groups all the same.
    """

    max_rounds: Annotated[int, Field(ge=2, le=1_000)] = 3
    """Rounds of sampling at most."""
