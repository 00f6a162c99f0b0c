"""One frozen model per kind of run; what several settings must satisfy together is checked before anything starts.

Imports no torch: the command line reads a configuration in well under a second.
"""

from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator

from plumbob.configs.base import Changeable, Count, Seed, Settings
from plumbob.configs.checks.input_checks import (
    check_bias,
    check_environment,
    check_feedback_kind,
    check_measured,
    check_no_environment,
    check_pipeline_data,
    check_scores_pairs,
)
from plumbob.configs.checks.learner_checks import check_critic, check_divides, check_float32_copy, check_handed_on
from plumbob.configs.checks.objective_checks import (
    check_gold_reward,
    check_no_teachers,
    check_online,
    check_rewarded,
    check_teachers,
    with_no_clip_by_default,
)
from plumbob.configs.checks.serving_checks import check_quantised_base
from plumbob.configs.schema import kind_of
from plumbob.configs.settings.algorithms import algorithm_of
from plumbob.configs.settings.data import (
    DemonstrationDataSettings,
    EvalDataSettings,
    FeedbackDataSettings,
    LabelledDataSettings,
    PerplexitySettings,
    PipelineDataSettings,
    PromptDataSettings,
    ReplaySettings,
    RetentionSettings,
    TextDataSettings,
    TokenizedPairDataSettings,
)
from plumbob.configs.settings.metrics.sinks import Sinks
from plumbob.configs.settings.models import (
    AlignedPolicySettings,
    EncoderSettings,
    EvaluatedPolicySettings,
    ModelRef,
    PipelinePolicySettings,
    PolicyBaseSettings,
    PolicySettings,
    PretrainedPolicySettings,
    RewardEncoderSettings,
    TeacherSettings,
)
from plumbob.configs.settings.rewards import GoldRewardSettings, PipelineScorerSettings, ScorerSettings
from plumbob.configs.settings.stewardship.bias_checks import BiasCheckSettings
from plumbob.configs.settings.stewardship.energy import EnergySettings
from plumbob.configs.settings.training import (
    MIN_COMPARED,
    CalibrationSettings,
    DpoSettings,
    EpochSettings,
    EvaluationSettings,
    KtoSettings,
    OnlineSettings,
    PolicyEvaluationSettings,
    PretrainEncoderSettings,
    PretrainSettings,
    RewardTrainingSettings,
    SftSettings,
)
from plumbob.configs.settings.tuning.adapters import check_ranks_stay
from plumbob.configs.settings.tuning.soft_prompts import check_tasks
from plumbob.configs.settings.workers import (
    ClusterSettings,
    LearnerRankSettings,
    LearnerSettings,
    RolloutSettings,
    StorageSettings,
)


class Run(Settings):
    """What every kind of run has."""

    samples_for_updates: ClassVar[bool] = False
    """Whether every update learns from responses that were sampled for it."""

    name: str = ""
    """Folder of the run below `storage.path`; the default is the preset's name."""
    seed: Seed = 0
    """Of all randomness: the same seed and settings give the same run."""
    storage: StorageSettings = StorageSettings()
    cluster: Changeable[ClusterSettings] = ClusterSettings()
    energy: Changeable[EnergySettings] = EnergySettings()

    @property
    def stage(self) -> str:
        """What its one stage is called, on the screen and in what it leaves behind."""
        return kind_of(type(self))


class TrainingRun(Run):
    """A run with learners that are trained; their number must divide every batch of an optimizer step."""

    learner: LearnerSettings = LearnerSettings()
    sinks: Changeable[Sinks] = ()
    """Where else the steps are written to, such as `[{kind: wandb}]`; files in the run's folder always are."""

    @property
    def epochs(self) -> tuple[str, EpochSettings]:
        """Of a run that learns from a file: the section that says how, and what it says."""
        return next((name, settings) for name, settings in self if isinstance(settings, EpochSettings))

    @model_validator(mode="after")
    def _check_divisible(self) -> Self:
        for name, settings in self:
            if isinstance(settings, EpochSettings):
                check_divides(f"{name}.batch_size", settings.batch_size, self.learner)
            elif isinstance(settings, PolicyBaseSettings):
                check_float32_copy(settings, self.learner)
                if isinstance(settings, PolicySettings) and not self.samples_for_updates:
                    check_critic(settings.tuning)
        return self


class PretrainRun(TrainingRun):
    kind: Literal["pretrain"] = "pretrain"
    data: TextDataSettings
    policy: PretrainedPolicySettings
    pretrain: PretrainSettings = PretrainSettings()


class PretrainEncoderRun(TrainingRun):
    kind: Literal["pretrain-encoder"] = "pretrain-encoder"
    data: TextDataSettings
    reward: EncoderSettings
    pretrain: PretrainEncoderSettings = PretrainEncoderSettings()


class SftRun(TrainingRun):
    kind: Literal["sft"] = "sft"
    data: DemonstrationDataSettings
    policy: PolicySettings
    sft: SftSettings = SftSettings()
    retention: RetentionSettings | None = None
    replay: ReplaySettings | None = None

    @model_validator(mode="after")
    def _check_tasks(self) -> Self:
        check_tasks(self.policy.tuning, {"retention": self.retention, "replay": self.replay})
        return self


class RewardRun(TrainingRun):
    kind: Literal["reward"] = "reward"
    data: FeedbackDataSettings
    reward: RewardEncoderSettings
    calibration: CalibrationSettings = CalibrationSettings()
    rollout: RolloutSettings = RolloutSettings()
    reward_training: RewardTrainingSettings = RewardTrainingSettings()

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_feedback_kind(self.data.kind, self.reward_training.objective)
        check_no_environment(self.rollout, self.kind)
        return self


class DpoRun(TrainingRun):
    kind: Literal["dpo"] = "dpo"
    data: TokenizedPairDataSettings
    policy: AlignedPolicySettings
    dpo: DpoSettings = DpoSettings()
    retention: RetentionSettings | None = None


class KtoRun(TrainingRun):
    kind: Literal["kto"] = "kto"
    data: LabelledDataSettings
    policy: AlignedPolicySettings
    kto: KtoSettings = KtoSettings()
    retention: RetentionSettings | None = None


class OnlineRun(TrainingRun):
    samples_for_updates = True

    kind: Literal["online"] = "online"
    data: PromptDataSettings
    policy: AlignedPolicySettings
    reward: ScorerSettings | None = None
    """What is learnt from; with teachers it may be left out, and is measured alone."""
    gold_reward: GoldRewardSettings | None = None
    bias: BiasCheckSettings | None = None
    """Measures the reward's bias before the first step; None does not."""
    teachers: tuple[TeacherSettings, ...] = ()
    """For `online.estimator.kind=distillation`."""
    teachers_by: Annotated[str, Field(min_length=1)] | None = None
    """Column of the prompts' rows that has the name of each prompt's teacher, where there are several."""
    rollout: RolloutSettings = RolloutSettings()
    online: OnlineSettings = Field(default=OnlineSettings(), validate_default=True)
    retention: RetentionSettings | None = None
    replay: ReplaySettings | None = None

    @property
    def stage(self) -> str:
        return algorithm_of(self.online.estimator)

    @property
    def teacher_refs(self) -> tuple[ModelRef, ...]:
        """In the order of the numbers by which rows name them."""
        return tuple(
            teacher.ref_to(teacher.model, f"teachers.{number}.model") for number, teacher in enumerate(self.teachers)
        )

    @model_validator(mode="before")
    @classmethod
    def _default_no_clip_for_parts(cls, given: Any) -> Any:
        return with_no_clip_by_default(given)

    @field_validator("online")
    @classmethod
    def _check_what_is_learnt_from(cls, online: OnlineSettings, info: ValidationInfo) -> OnlineSettings:
        """As soon as the objective is known, so that it is reported beside whatever else is missing."""
        given = info.data
        if {"reward", "teachers", "teachers_by"} <= given.keys():
            check_rewarded(online, given["reward"])
            check_teachers(online, given["teachers"], given["teachers_by"])
        return online

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_online(self.online, self.learner, self.rollout, self.policy.tuning, self.reward)
        check_environment(self.rollout, self.gold_reward)
        check_bias(self.bias, self.reward)
        check_ranks_stay(self.policy.tuning)
        check_quantised_base(self.policy, self.rollout, self.online)
        return self


class EvalRun(Run):
    """Measures a reward model on pairs (`data.pairs`), or a policy on prompts (`data.prompts`), or both."""

    kind: Literal["eval"] = "eval"
    data: EvalDataSettings
    policy: EvaluatedPolicySettings | None = None
    """The policy to measure, on `data.prompts`; None measures a reward model alone."""
    reward: ScorerSettings
    rollout: RolloutSettings = RolloutSettings()
    learner: LearnerRankSettings = LearnerRankSettings()
    evaluation: PolicyEvaluationSettings = PolicyEvaluationSettings()
    perplexity: PerplexitySettings | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_measured(self.data, self.policy, self.perplexity)
        if self.rollout.quantised_base == "stored":
            raise ValueError(
                "rollout.quantised_base=stored: an evaluation samples from the weights that it measures KL and "
                "perplexity with, in few bits or not: leave it out"
            )
        check_environment(self.rollout, self.reward)
        if self.data.pairs is not None:
            check_scores_pairs(self.reward)
        return self


class PipelineRun(TrainingRun):
    """Every stage in order, each handing its folder to the next."""

    kind: Literal["pipeline"] = "pipeline"
    data: PipelineDataSettings
    policy: PipelinePolicySettings
    reward: PipelineScorerSettings
    rollout: RolloutSettings = RolloutSettings()
    pretrain: PretrainSettings = PretrainSettings()
    pretrain_encoder: PretrainEncoderSettings = PretrainEncoderSettings()
    sft: SftSettings = SftSettings()
    reward_training: RewardTrainingSettings = RewardTrainingSettings()
    online: OnlineSettings = OnlineSettings()
    dpo: DpoSettings = DpoSettings()
    calibration_prompts: Count = 128
    """Prompts whose responses, of the fine-tuned policy, are to score mean 0 and variance 1."""
    evaluation: EvaluationSettings = EvaluationSettings()
    bias: BiasCheckSettings | None = None
    """Measures the reward's bias before the first step of the online stage; None does not."""

    @model_validator(mode="before")
    @classmethod
    def _default_no_clip_for_parts(cls, given: Any) -> Any:
        return with_no_clip_by_default(given)

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_pipeline_data(self.data, self.reward, self.reward_training.objective)
        if self.evaluation.num_prompts < MIN_COMPARED:
            raise ValueError(f"a pipeline compares its policies: set evaluation.num_prompts={MIN_COMPARED} at least")
        check_no_teachers(self.online)
        check_bias(self.bias, self.reward)
        check_online(self.online, self.learner, self.rollout, self.policy.tuning, self.reward)
        check_no_environment(self.rollout, self.kind)
        check_gold_reward(self.online, self.data.toy is not None)
        check_ranks_stay(self.policy.tuning)
        check_quantised_base(self.policy, self.rollout, self.online)
        check_critic(self.policy.sft_tuning, "policy.sft_tuning")
        check_handed_on(self.policy.sft_tuning, self.policy.tuning)
        return self


AnyRun = Annotated[
    PretrainRun | PretrainEncoderRun | SftRun | RewardRun | DpoRun | KtoRun | OnlineRun | EvalRun | PipelineRun,
    Field(discriminator="kind"),
]

RUN_KINDS: dict[str, type[Run]] = {run.model_fields["kind"].default: run for run in get_args(get_args(AnyRun)[0])}
"""By the name that settings give of it."""

LearnerRun = PretrainRun | PretrainEncoderRun | SftRun | RewardRun | DpoRun | KtoRun | OnlineRun | EvalRun
"""The kinds of run that have learners. An EvalRun is no TrainingRun: its learners only compute, as the baseline."""
