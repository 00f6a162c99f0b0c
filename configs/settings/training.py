"""The settings of each stage: how it optimises, and what."""

import os
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from plumbob.configs.base import (
    BatchSize,
    Changeable,
    Coefficient,
    Count,
    CountOrZero,
    Fraction,
    LearningRate,
    ModelName,
    NumTokens,
    Positive,
    PositiveOrZero,
    Settings,
    usable_path,
)
from plumbob.configs.settings.algorithms import (
    RANKED,
    Clipped,
    DynamicSamplingSettings,
    Estimator,
    FixedKl,
    Gae,
    Importance,
    KlPenalty,
    PolicyLoss,
    ShapingSettings,
    TruncatedImportance,
)
from plumbob.configs.settings.metrics.monitors import MonitoringSettings
from plumbob.configs.settings.models import FrozenPolicySettings, ModelRef
from plumbob.configs.settings.offline_objectives import BradleyTerry, DpoLoss, PreferenceLoss, RewardObjective
from plumbob.configs.settings.stewardship.bias_checks import BiasMitigationSettings

SamplesPerPrompt = Annotated[int, Field(gt=0, le=10_000)]


class OptimizerSettings(Settings):
    """AdamW with a schedule: linear warm-up, then constant, or linear or cosine decay to zero."""

    learning_rate: LearningRate
    """At its highest."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """What the learning rate does after the warm-up."""
    warmup_fraction: Fraction = 0.05
    """Share of the steps over which the learning rate rises."""
    weight_decay: PositiveOrZero = 0.0
    """AdamW's."""
    max_grad_norm: Positive = 1.0
    """Gradients of a larger norm are scaled down to it."""


class EarlyStoppingSettings(Settings):
    """Stop once the held-out loss no longer falls; the best step's state is the result, and its checkpoint stays."""

    patience: Count = 3
    """Measurements in a row without an improvement."""
    min_delta: PositiveOrZero = 0.0
    """A fall of the held-out loss of no more than this is no improvement."""


class EpochSettings(OptimizerSettings):
    """An offline stage: epochs over a fixed set of records."""

    row_name: ClassVar[str] = "records"
    """What one row of a batch is called, of several."""

    num_epochs: Count = 1
    """How often each record is trained on."""
    batch_size: BatchSize = 32
    """Records in one optimizer step, over all ranks."""
    save_every: Changeable[Count] = 200
    """Optimizer steps between checkpoints; the last step is always saved."""
    keep_checkpoints: Changeable[Count] = 2
    """Newest checkpoints that are kept."""
    evaluate_every: Count | None = None
    """Optimizer steps between measurements on the held-out records; None measures after the last step only."""
    evaluate_first: bool = False
    """Measure the held-out records before the first step too, as `heldout_..._before` in the result."""
    early_stopping: EarlyStoppingSettings | None = None

    @property
    def measures_again(self) -> bool:
        """Whether the held-out records are measured more than once."""
        return self.evaluate_first or self.evaluate_every is not None

    @model_validator(mode="after")
    def _check_stopping(self) -> Self:
        if self.early_stopping is not None and self.evaluate_every is None:
            raise ValueError(
                "early_stopping looks at the held-out loss on the way, but evaluate_every is not set: "
                "set it to a number of optimizer steps, such as 20"
            )
        return self


class PretrainSettings(EpochSettings):
    """Self-supervised training of a causal model: next-token prediction."""

    row_name = "blocks"

    learning_rate: LearningRate = 1e-3
    block_tokens: NumTokens = 128
    """Tokens in one training sequence; documents are packed, an EOS between them."""


class PretrainEncoderSettings(PretrainSettings):
    """Self-supervised training of an encoder: masked words."""

    mask_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """The share of tokens that are to be predicted."""


class SftSettings(EpochSettings):
    """Supervised fine-tuning; the loss is on the response's tokens only."""

    learning_rate: LearningRate = 5e-4


class RewardTrainingSettings(EpochSettings):
    """An encoder with one output learns how good a response is."""

    learning_rate: LearningRate = 1e-4
    objective: RewardObjective = BradleyTerry()
    dropout: bool = True
    """Whether the encoder drops out what its config asks for; LoRA's own is `reward.tuning.dropout`."""
    mitigation: BiasMitigationSettings | None = None
    """Against a bias of the records; None does nothing and measures none."""

    @property
    def consistency(self) -> float:
        """The weight of the mitigation's consistency loss; 0 where there is none."""
        return 0.0 if self.mitigation is None else self.mitigation.consistency


class CalibrationSettings(FrozenPolicySettings):
    """Where the stored mean and standard deviation of the scores come from."""

    policy: ModelName | None = None
    """The policy whose sampled responses are to score mean 0, variance 1; None takes those in the pairs file."""
    num_prompts: Count = 128
    """Prompts that it is asked."""

    @property
    def policy_ref(self) -> ModelRef | None:
        return None if self.policy is None else self.ref_to(self.policy, "calibration.policy")


class DpoSettings(EpochSettings):
    """A policy learns from preference pairs, without a reward model or sampling."""

    row_name = "pairs"

    learning_rate: LearningRate = 5e-4
    loss: PreferenceLoss = DpoLoss()


class KtoSettings(EpochSettings):
    """A policy learns from single responses labelled good or bad (Ethayarajh et al. 2024, arXiv 2402.01306)."""

    row_name = "responses"

    learning_rate: LearningRate = 5e-4
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = 32
    """Records in one optimizer step, over all ranks; the KL is estimated from prompts with others' responses."""
    beta: Positive = 0.1
    """How strongly the policy is held to the reference."""
    desirable_weight: Positive = 1.0
    """Of good responses in the loss."""
    undesirable_weight: Positive = 1.0
    """Of bad responses in the loss."""


class OnlineSettings(OptimizerSettings):
    """Policy gradients on sampled responses, in the form of PPO (Schulman et al. 2017, arXiv 1707.06347)."""

    learning_rate: LearningRate = 5e-4
    num_steps: Count = 50
    """Rounds of sampling, scoring and learning."""
    prompts_per_step: BatchSize = 32
    """Prompts in one round."""
    samples_per_prompt: SamplesPerPrompt = 1
    """Responses to each."""
    num_epochs: Count = 1
    """Passes over a round's responses."""
    minibatch_size: BatchSize = 32
    """Samples in one optimizer step, over all ranks."""
    estimator: Estimator = Gae()
    loss_mean: Literal["token", "response"] = "token"
    """`token`: every token of the optimizer step weighs the same; `response`: every response does."""
    policy_loss: PolicyLoss = Clipped()
    kl: KlPenalty = FixedKl()
    monitors: MonitoringSettings = MonitoringSettings()
    combine_parts: Literal["sum", "standardised"] = "sum"
    """How the parts of a reward become one: their weighted sum; or each first standardised in its group, so that one
    whose values lie far apart does not drown the others (GDPO, Liu et al. 2026, arXiv 2601.05242)."""
    shaping: ShapingSettings = ShapingSettings()
    importance: Importance = TruncatedImportance()
    mask_truncated: bool = False
    """Responses that were cut at their length limit are not learnt from (DAPO's overlong filtering, 2503.14476).

    Nor are they part of their group's mean or deviation: the update is that of the reward of responses that end.
    """
    dynamic_sampling: DynamicSamplingSettings | None = None
    max_staleness: CountOrZero = 0
    """Policy versions that a token may be behind the learner's when it is trained on.

    Above 0 sampling continues beside learning, as many steps ahead of it; 0 samples and learns by turns.
    """
    old_logprobs: Literal["sampler", "learner"] = "sampler"
    """Whose log-probs of the responses stand for those of the policy as an update begins.

    `sampler` spares a forward over the whole batch. It holds while no measured gap between the two is above 1e-4 nats
    and responses have no staleness: the first step, and all from the first larger gap on, take the learner's.
    """
    keep_checkpoints: Changeable[Count] = 2
    """Newest checkpoints that are kept."""

    @property
    def samples_per_step(self) -> int:
        return self.prompts_per_step * self.samples_per_prompt

    @property
    def rows_per_update(self) -> int:
        """Rows of one optimizer step: its samples, or its groups where one row is learnt of each."""
        return self.minibatch_size // (self.samples_per_prompt if isinstance(self.estimator, RANKED) else 1)

    @property
    def updates_per_epoch(self) -> int:
        """Optimizer steps of one pass over a round's responses."""
        return self.samples_per_step // self.minibatch_size

    @property
    def updates_per_step(self) -> int:
        """Optimizer steps."""
        return self.num_epochs * self.updates_per_epoch


OutputFile = Annotated[
    str, AfterValidator(usable_path), AfterValidator(os.path.expanduser), AfterValidator(os.path.abspath)
]
"""A file that a run writes. It becomes absolute: it is looked for from other working folders too."""

MIN_COMPARED = 2
"""Prompts that policies are compared over: the spread over them tells an interval."""


class EvaluationSettings(Settings):
    num_prompts: Count = 256
    """Prompts that are asked."""
    samples_per_prompt: SamplesPerPrompt = 1
    """Responses to each."""
    num_shown: Count = 8
    """Prompts whose responses are printed side by side in the report."""


class PolicyEvaluationSettings(EvaluationSettings):
    """What `plumbob eval` measures of policies."""

    pass_at: tuple[SamplesPerPrompt, ...] = ()
    """Numbers k: the chance that one of k responses is right (pass@k), estimated from `samples_per_prompt`."""
    right_from: Coefficient = 1.0
    """A response is right whose reward is at least this."""
    responses_file: OutputFile | None = None
    """A Parquet file to write, with every response and its scores; None writes none."""

    @model_validator(mode="after")
    def _check_pass_at(self) -> Self:
        largest = max(self.pass_at, default=0)
        if largest > self.samples_per_prompt:
            raise ValueError(
                f"evaluation.pass_at={largest} is estimated from that many responses or more to a prompt: set "
                f"evaluation.samples_per_prompt={largest} at least"
            )
        return self
