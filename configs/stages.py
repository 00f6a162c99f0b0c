"""The settings of each stage: how it optimises, and what."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from configs.models import PolicyBase
from configs.section import Fraction, Section


class Optimizer(Section):
    """AdamW with a schedule: linear warm-up, then constant, or linear or cosine decay to zero."""

    learning_rate: PositiveFloat
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup_fraction: Fraction = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: PositiveFloat = 1.0


class Epochs(Optimizer):
    """An offline stage: passes over a fixed set of records."""

    num_epochs: PositiveInt = 1
    batch_size: PositiveInt = 32
    """Records in one optimizer step, over all ranks."""
    save_every: PositiveInt = 200
    """Optimizer steps between checkpoints; the last step is always saved."""
    keep_checkpoints: PositiveInt = 2


class Pretrain(Epochs):
    """Self-supervised training of a causal model: next-token prediction."""

    learning_rate: PositiveFloat = 1e-3
    block_tokens: PositiveInt = 128
    """Tokens in one training sequence; documents are packed, an EOS between them."""


class PretrainEncoder(Pretrain):
    """Self-supervised training of an encoder: masked words."""

    mask_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """The share of tokens that are to be predicted."""


class Sft(Epochs):
    """Supervised fine-tuning; the loss is on the answer's tokens only."""

    learning_rate: PositiveFloat = 5e-4


class BradleyTerry(Epochs):
    """Reward model on preference pairs: -log sigmoid(r(chosen) - r(rejected))."""

    learning_rate: PositiveFloat = 1e-4


class Calibration(PolicyBase):
    """Where the stored mean and standard deviation of the scores come from."""

    policy: str | None = None
    """The policy whose sampled answers are to score mean 0, variance 1; None takes the answers in the pairs file."""
    num_prompts: PositiveInt = 128


class Dpo(Epochs):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290)."""

    learning_rate: PositiveFloat = 5e-4
    beta: PositiveFloat = 0.1


class FixedKl(Section):
    kind: Literal["fixed"] = "fixed"
    coefficient: NonNegativeFloat = 0.05


class AdaptiveKl(Section):
    """Proportional controller on the measured KL (Ziegler et al. 2019, arXiv 1909.08593, section 2.2)."""

    kind: Literal["adaptive"] = "adaptive"
    coefficient: PositiveFloat = 0.05
    target: PositiveFloat = 4.0
    """Mean KL of a whole answer from the reference, in nats."""
    horizon: PositiveInt = 1000
    """Samples over which the coefficient may change by a factor e at most at an error of 100%."""


KlPenalty = Annotated[FixedKl | AdaptiveKl, Field(discriminator="kind")]


class Ppo(Optimizer):
    """Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347), a per-token KL penalty in the reward."""

    learning_rate: PositiveFloat = 5e-4
    value_learning_rate: PositiveFloat = 1e-3
    num_steps: PositiveInt = 50
    prompts_per_step: PositiveInt = 32
    samples_per_prompt: PositiveInt = 1
    num_epochs: PositiveInt = 1
    minibatch_size: PositiveInt = 32
    """Samples in one optimizer step, over all ranks."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 1.0
    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95
    clip_range: PositiveFloat = 0.2
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    value_clip_range: PositiveFloat | None = 0.2
    whiten_advantages: bool = True
    kl: KlPenalty = FixedKl()
    kl_bound: PositiveFloat = 20.0
    """Mean KL of a whole answer, in nats, above which the run says so."""
    missing_eos_penalty: NonNegativeFloat = 1.0
    reward_clip: PositiveFloat | None = 5.0
    importance_cap: PositiveFloat | None = 2.0
    """Truncation of pi_learner / pi_sampler, per token; None trains without the correction."""
    sampler_gap_bound: PositiveFloat = 0.05
    """Largest mean |log pi_learner - log pi_sampler| that is not reported as a fault."""
    max_staleness: NonNegativeInt = 0
    """Policy versions that a token may be behind the learner's when it is trained on."""
    overlap: bool = False
    """Sample the next step's batch while learning from this one; needs `max_staleness` of at least 1."""
    keep_checkpoints: PositiveInt = 2

    @property
    def samples_per_step(self) -> int:
        return self.prompts_per_step * self.samples_per_prompt


class Evaluation(Section):
    num_prompts: PositiveInt = 256
    samples_per_prompt: PositiveInt = 1
    num_shown: PositiveInt = 8
    """Prompts whose answers are printed side by side in the report."""
