"""What an online run is watched for: each known failure with its threshold, and what to do when it shows."""

from typing import Annotated, Literal

from pydantic import Field

from plumbob.configs.base import Factor, Fraction, Positive, PositiveOrZero, Settings

Window = Annotated[int, Field(ge=3, le=1_000_000)]


class MonitorSettings(Settings):
    action: Literal["off", "warn", "stop"] = "warn"
    """`stop` ends the run after the step's commit, with the policy of that step as its result."""


class KlMonitorSettings(MonitorSettings):
    """The policy is too far from the reference for its reward to mean much."""

    bound: Positive = 20.0
    """Mean KL of a whole response, in nats."""


class OverOptimisationSettings(MonitorSettings):
    """Reward rises while the gold reward falls (Gao et al. 2022, arXiv 2210.10760), that of `gold_reward.model`."""

    window: Window = 20
    """Steps over which both trends are fitted."""
    num_errors: PositiveOrZero = 2.0
    """How many standard errors each slope must be away from zero."""


class CollapseSettings(MonitorSettings):
    """The policy says the same whatever it is asked."""

    window: Window = 5
    """Steps at the beginning and at the end that are compared, each by their mean."""
    min_entropy_share: Fraction = 0.2
    """Of the first steps' entropy per token, what must be left."""
    max_repeated_rise: Annotated[float, Field(gt=0, le=1)] = 0.3
    """How far the share of responses that stand in their batch more than once may rise."""


class LengthGamingSettings(MonitorSettings):
    """Responses grow and the reward with them: it may be paid for length."""

    window: Window = 5
    """Steps at the beginning and at the end that are compared."""
    max_growth: Factor = 2.0
    """Mean tokens of a response now, over those of the first steps."""


class StandstillSettings(MonitorSettings):
    """Steps that change nothing although the learning rate is not near zero."""

    window: Window = 5
    """Steps in a row."""
    min_update_kl: PositiveOrZero = 1e-9
    """KL in nats a token between the policies before and during a step; of steps with several optimizer steps."""
    min_grad_norm: PositiveOrZero = 1e-9
    """Gradient norm below which a step changes nothing."""


class SamplerGapSettings(MonitorSettings):
    """Sampler and learner compute different probabilities: other weights, another temperature, a broken kernel."""

    bound: Positive = 0.05
    """Mean |log pi_learner - log pi_sampler| in nats over the tokens of the learner's own version."""


class MonitoringSettings(Settings):
    kl: KlMonitorSettings = KlMonitorSettings()
    sampler_gap: SamplerGapSettings = SamplerGapSettings()
    over_optimisation: OverOptimisationSettings = OverOptimisationSettings()
    collapse: CollapseSettings = CollapseSettings()
    length_gaming: LengthGamingSettings = LengthGamingSettings()
    standstill: StandstillSettings = StandstillSettings()
