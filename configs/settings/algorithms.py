"""What is optimised: estimators, surrogate, KL, importance correction, shaping online; preference losses offline.

Each variant is one class with its `kind`; its equation and paper stand at its function in `trainers/`.
"""

from typing import Annotated, Literal, Self, assert_never

from pydantic import Field, model_validator

from plumbob.configs.base import Count, Factor, LearningRate, NumTokens, Positive, PositiveOrZero, Settings

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


Estimator = Annotated[
    Gae | ReinforcePlusPlus | ReinforcePlusPlusBaseline | Rloo | Grpo | DrGrpo, Field(discriminator="kind")
]

GROUPED = ReinforcePlusPlusBaseline | Rloo | Grpo | DrGrpo
"""Estimators that compare the responses to one prompt, of which there must be several."""


def algorithm_of(estimator: Estimator) -> str:
    """What people call policy gradients with that estimator: its kind, or `ppo` where it is PPO's own."""
    return "ppo" if isinstance(estimator, Gae) else estimator.kind


def critic_of(estimator: Estimator) -> Gae | None:
    """The settings of the critic that an estimator trains; None where it trains none."""
    match estimator:
        case Gae():
            return estimator
        case ReinforcePlusPlus() | ReinforcePlusPlusBaseline() | Rloo() | Grpo() | DrGrpo():
            return None
        case _:
            assert_never(estimator)


# ---------------------------------------------------------------------------------------------------- policy surrogate


class Clipped(Settings):
    """The clipped surrogate of PPO (Schulman et al. 2017, arXiv 1707.06347)."""

    kind: Literal["clipped"] = "clipped"
    clip_range: Positive = 0.2
    """How far from 1 the ratio of new to old probability still earns."""
    dual_clip: Factor | None = None
    """Bound of the ratio where the advantage is negative; None has none."""


PolicyLoss = Clipped
"""With a second variant: `Annotated[Clipped | ..., Field(discriminator="kind")]`, as the others here."""

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
                "ppo.kl.place=loss with ppo.kl.estimate=k1: its gradient is zero in expectation, so that nothing would "
                "hold the policy; set ppo.kl.estimate=k2 or k3, or ppo.kl.place=reward"
            )
        if self.place == "reward" and self.estimate != "k1":
            raise ValueError(
                f"ppo.kl.place=reward with ppo.kl.estimate={self.estimate}: as a reward it leads to a policy that is "
                f"not the KL-regularised optimum, or to none; set ppo.kl.estimate=k1, or ppo.kl.place=loss"
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


class ShapingSettings(Settings):
    """From the scorer's total to the response's reward: scaled, clipped, then the penalties taken off."""

    scale: Positive = 1.0
    """The scorer's total is multiplied by it."""
    clip: Positive | None = 5.0
    """Then cut to between -clip and clip; None does not."""
    missing_eos_penalty: PositiveOrZero = 1.0
    """Taken off where a response did not end."""
    length_penalty: LengthPenaltySettings | None = None


class DynamicSamplingSettings(Settings):
    """Groups of equal rewards teach nothing but the KL's; other prompts are sampled in their place (arXiv 2503.14476).

    The paper has no KL. With one, prompts whose responses are all rewarded alike are no longer held to the reference.
    After `max_rounds` rounds of sampling the step is filled up with such groups all the same.
    """

    max_rounds: Annotated[int, Field(ge=2, le=1_000)] = 3
    """Rounds of sampling at most."""


# ------------------------------------------------------------------------------------------------------------- offline


class DpoLoss(Settings):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290)."""

    kind: Literal["dpo"] = "dpo"
    beta: Positive = 0.1
    """How strongly the policy is held to the reference."""
    per_token: bool = False
    """Mean log-ratio of a response's tokens instead of their sum: length-normalised DPO (Lambert et al. 2024, Tulu 3,
    arXiv 2411.15124, section 5)."""


class ConservativeDpoLoss(Settings):
    """DPO with smoothed labels (Mitchell 2023)."""

    kind: Literal["conservative-dpo"] = "conservative-dpo"
    beta: Positive = 0.1
    """How strongly the policy is held to the reference."""
    flip_rate: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share of labels that are wrong."""


class RobustDpoLoss(Settings):
    """DPO, unbiased under labels that are flipped at a known rate (Chowdhury et al. 2024, arXiv 2403.00409)."""

    kind: Literal["robust-dpo"] = "robust-dpo"
    beta: Positive = 0.1
    """How strongly the policy is held to the reference."""
    flip_rate: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share of labels that are wrong."""


class IpoLoss(Settings):
    """Identity preference optimisation (Azar et al. 2023, arXiv 2310.12036)."""

    kind: Literal["ipo"] = "ipo"
    tau: Positive = 0.1
    """How strongly the policy is held to the reference."""
    per_token: bool = False
    """Mean log-ratio of a response's tokens instead of their sum: not the paper's, but in use."""


class HingeLoss(Settings):
    """A margin of 1 on implicit rewards (SLiC-HF, Zhao et al. 2023, arXiv 2305.10425)."""

    kind: Literal["hinge"] = "hinge"
    beta: Positive = 0.1
    """How strongly the policy is held to the reference."""


class OrpoLoss(Settings):
    """Likelihood of the chosen response and its odds against the rejected one (Hong et al. 2024, arXiv 2403.07691)."""

    kind: Literal["orpo"] = "orpo"
    weight: Positive = 0.1
    """Of the odds, beside a likelihood of weight 1."""
    likelihood: Literal["response", "sequence"] = "response"
    """The paper's, of the chosen response and a mean over its tokens; or of its prompt too and a mean over all the
    step's tokens, which is what the authors' code takes unless told otherwise, and TRL."""


class SimpoLoss(Settings):
    """Mean log-prob of a token as the reward, with a margin (Meng et al. 2024, arXiv 2405.14734)."""

    kind: Literal["simpo"] = "simpo"
    beta: Positive = 2.0
    """Scale of the reward."""
    margin: PositiveOrZero = 1.0
    """By which the chosen response must be ahead."""


class SppoLoss(Settings):
    """A target for each response's own log-ratio (self-play preference optimisation, Wu et al. 2024, 2405.00675)."""

    kind: Literal["sppo"] = "sppo"
    beta: Positive = 0.1
    """1 / eta of the paper: the targets are 1 / (2 beta) and -1 / (2 beta)."""


PreferenceLoss = Annotated[
    DpoLoss | ConservativeDpoLoss | RobustDpoLoss | IpoLoss | HingeLoss | OrpoLoss | SimpoLoss | SppoLoss,
    Field(discriminator="kind"),
]

REFERENCE_FREE = OrpoLoss | SimpoLoss
"""Losses that compare the policy with no reference."""


def reads_prompt(loss: PreferenceLoss) -> bool:
    """Whether a loss is also one of the prompt's tokens."""
    return isinstance(loss, OrpoLoss) and loss.likelihood == "sequence"


# -------------------------------------------------------------------------------------------------------- reward model


class BradleyTerry(Settings):
    """-log((1 - e) sigmoid(d) + e sigmoid(-d)), d = r(chosen) - r(rejected) (Bradley and Terry 1952)."""

    kind: Literal["bradley-terry"] = "bradley-terry"
    flip_rate: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """e, the share of labels that are wrong (Christiano et al. 2017, arXiv 1706.03741, section 2.2.3: 0.05)."""
    use_margin: bool = False
    """Take off the pair's `margin` (Touvron et al. 2023, arXiv 2307.09288, equation 2)."""


class PlackettLuce(Settings):
    """Likelihood of a whole ranking of responses (Plackett 1975)."""

    kind: Literal["plackett-luce"] = "plackett-luce"


class Regression(Settings):
    """Half the squared error from an absolute score (HelpSteer2, Wang et al. 2024, arXiv 2406.08673)."""

    kind: Literal["regression"] = "regression"


RewardObjective = Annotated[BradleyTerry | PlackettLuce | Regression, Field(discriminator="kind")]
