"""One frozen model per kind of run; what several settings must satisfy together is checked before anything starts.

Imports no torch: the command line reads a configuration in well under a second.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from configs.sections import (
    AlignedPolicy,
    Cluster,
    DemonstrationData,
    Epochs,
    EvalData,
    EvaluatedPolicy,
    Learner,
    LoraTuning,
    Optimizer,
    PairData,
    PipelineData,
    PipelinePolicy,
    PipelineScorer,
    Policy,
    PolicyBase,
    PretrainedPolicy,
    PromptData,
    RewardEncoder,
    Rollout,
    Scorer,
    Section,
    Storage,
    TextData,
    VllmEngine,
)

VLLM_MAX_LORA_RANK = 512

# ------------------------------------------------------------------------------------------------- settings of a stage


class Pretrain(Epochs):
    """Self-supervised training: next-token prediction for a causal model, masked words for an encoder."""

    learning_rate: PositiveFloat = 1e-3
    block_tokens: PositiveInt = 128
    """Tokens in one training sequence; documents are packed, an EOS between them."""
    mask_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Encoders only: the share of tokens that are to be predicted."""


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


# ------------------------------------------------------------------------------------------------------ kinds of run


class Run(Section):
    """What every kind of run has."""

    name: str = ""
    """Folder of the run below `storage.path`; the default is the preset's name."""
    seed: NonNegativeInt = 0
    storage: Storage = Storage()
    cluster: Cluster = Cluster()


class PretrainRun(Run):
    kind: Literal["pretrain"] = "pretrain"
    data: TextData
    policy: PretrainedPolicy
    learner: Learner = Learner()
    pretrain: Pretrain = Pretrain()

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_divides("pretrain.batch_size", self.pretrain.batch_size, self.learner)
        return self


class PretrainEncoderRun(Run):
    kind: Literal["pretrain-encoder"] = "pretrain-encoder"
    data: TextData
    reward: RewardEncoder
    learner: Learner = Learner()
    pretrain: Pretrain = Pretrain()

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_divides("pretrain.batch_size", self.pretrain.batch_size, self.learner)
        return self


class SftRun(Run):
    kind: Literal["sft"] = "sft"
    data: DemonstrationData
    policy: Policy
    learner: Learner = Learner()
    sft: Sft = Sft()

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_divides("sft.batch_size", self.sft.batch_size, self.learner)
        return self


class RewardRun(Run):
    kind: Literal["reward"] = "reward"
    data: PairData
    reward: RewardEncoder
    calibration: Calibration = Calibration()
    rollout: Rollout = Rollout()
    learner: Learner = Learner()
    bradley_terry: BradleyTerry = BradleyTerry()

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_divides("bradley_terry.batch_size", self.bradley_terry.batch_size, self.learner)
        return self


class DpoRun(Run):
    kind: Literal["dpo"] = "dpo"
    data: PairData
    policy: AlignedPolicy
    learner: Learner = Learner()
    dpo: Dpo = Dpo()

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_divides("dpo.batch_size", self.dpo.batch_size, self.learner)
        return self


class PpoRun(Run):
    kind: Literal["ppo"] = "ppo"
    data: PromptData
    policy: AlignedPolicy
    reward: Scorer
    rollout: Rollout = Rollout()
    learner: Learner = Learner()
    ppo: Ppo = Ppo()

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_ppo(self.ppo, self.learner)
        check_served(self.policy.tuning, self.rollout)
        return self


class EvalRun(Run):
    """Measures a reward model on pairs (`data.pairs`), or a policy on prompts (`data.prompts`), or both."""

    kind: Literal["eval"] = "eval"
    data: EvalData
    policy: EvaluatedPolicy | None = None
    reward: Scorer
    rollout: Rollout = Rollout()
    learner: Learner = Learner()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.data.pairs is None and self.data.prompts is None:
            raise ValueError(
                "nothing to measure: give data.pairs=FILE for a reward model, "
                "or data.prompts=FILE and policy.model=FOLDER for a policy"
            )
        if self.data.prompts is not None and self.policy is None:
            raise ValueError("data.prompts measures a policy: give policy.model=FOLDER too")
        if self.policy is not None and self.data.prompts is None:
            raise ValueError("policy.model is measured on prompts: give data.prompts=FILE too")
        return self


class PipelineRun(Run):
    """Every stage in order, each handing its folder to the next."""

    kind: Literal["pipeline"] = "pipeline"
    data: PipelineData
    policy: PipelinePolicy
    reward: PipelineScorer
    rollout: Rollout = Rollout()
    learner: Learner = Learner()
    pretrain: Pretrain = Pretrain()
    pretrain_encoder: Pretrain = Pretrain()
    sft: Sft = Sft()
    bradley_terry: BradleyTerry = BradleyTerry()
    ppo: Ppo = Ppo()
    dpo: Dpo = Dpo()
    calibration_prompts: PositiveInt = 128
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.data.toy is None) == (self.data.pairs is None):
            raise ValueError(
                "a pipeline is about a generated world (data.toy) or preference pairs (data.pairs=FILE): give one"
            )
        stages = {
            "pretrain": self.pretrain,
            "pretrain_encoder": self.pretrain_encoder,
            "sft": self.sft,
            "bradley_terry": self.bradley_terry,
            "dpo": self.dpo,
        }
        for stage, settings in stages.items():
            check_divides(f"{stage}.batch_size", settings.batch_size, self.learner)
        check_ppo(self.ppo, self.learner)
        check_served(self.policy.tuning, self.rollout)
        return self


AnyRun = Annotated[
    PretrainRun | PretrainEncoderRun | SftRun | RewardRun | DpoRun | PpoRun | EvalRun | PipelineRun,
    Field(discriminator="kind"),
]

LearnerRun = PretrainRun | PretrainEncoderRun | SftRun | RewardRun | DpoRun | PpoRun | EvalRun
"""The kinds of run that have learners; those of an evaluation only answer as the baseline."""

# ------------------------------------------------------------------------------------------------------- joint checks


def check_divides(key: str, batch_size: int, learner: Learner) -> None:
    if batch_size % learner.num_workers:
        raise ValueError(
            f"{key}={batch_size} cannot be shared equally by learner.num_workers={learner.num_workers}: "
            f"make it a multiple of {learner.num_workers}"
        )


def check_ppo(ppo: Ppo, learner: Learner) -> None:
    check_divides("ppo.minibatch_size", ppo.minibatch_size, learner)
    if ppo.samples_per_step % ppo.minibatch_size:
        raise ValueError(
            f"ppo.prompts_per_step x ppo.samples_per_prompt = {ppo.samples_per_step} samples cannot be cut into "
            f"minibatches of ppo.minibatch_size={ppo.minibatch_size}: make it a divisor of {ppo.samples_per_step}"
        )
    if ppo.overlap and ppo.max_staleness < 1:
        raise ValueError(
            "ppo.overlap=true trains on tokens that are one version old, but ppo.max_staleness=0 forbids that: "
            "set ppo.max_staleness=1 or ppo.overlap=false"
        )


def check_served(tuning: LoraTuning, rollout: Rollout) -> None:
    if isinstance(rollout.engine, VllmEngine) and tuning.rank > VLLM_MAX_LORA_RANK:
        raise ValueError(
            f"policy.tuning.rank={tuning.rank}: vLLM serves LoRA up to rank {VLLM_MAX_LORA_RANK}; "
            f"lower it or set rollout.engine.kind=transformers"
        )
