"""The whole pipeline: every stage in order, each handing its folder to the next."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from plumbob.configs.runs import (
    DpoRun,
    EvalRun,
    OnlineRun,
    PipelineRun,
    PretrainEncoderRun,
    PretrainRun,
    RewardRun,
    SftRun,
)
from plumbob.configs.settings.algorithms import algorithm_of
from plumbob.configs.settings.data import (
    DemonstrationDataSettings,
    EvalDataSettings,
    FeedbackDataSettings,
    PromptDataSettings,
    TextDataSettings,
    TokenizedPairDataSettings,
)
from plumbob.configs.settings.models import (
    AlignedPolicySettings,
    EncoderSettings,
    EvaluatedPolicySettings,
    NewBertSettings,
    NewLlamaSettings,
    PolicySettings,
    PretrainedPolicySettings,
)
from plumbob.configs.settings.stewardship.data_checks import NO_DATA_CHECKS
from plumbob.configs.settings.training import CalibrationSettings, PolicyEvaluationSettings
from plumbob.configs.settings.tuning.weights import WeightTuning
from plumbob.configs.settings.workers import LearnerRankSettings
from plumbob.core.disk_errors import replace_text
from plumbob.driver.measures.policy_metrics import policy_metrics, response_metrics
from plumbob.driver.measures.response_tables import write_samples
from plumbob.driver.pipeline.pipeline_data import PreparedFiles
from plumbob.driver.pipeline.pipeline_files import Files
from plumbob.driver.run_folder.folder import SAMPLES_FILE, SUMMARY_FILE
from plumbob.driver.stages import reward_stage
from plumbob.driver.stages.evaluating.evaluation import measure_policies
from plumbob.driver.stages.evaluating.evaluation_input import prepare_eval
from plumbob.driver.stages.prepare import prepare
from plumbob.driver.stages.stage import StageBody, StageContext, run_stage
from plumbob.models.loading import open_policy
from plumbob.reward.services.judge_answers import ANSWERS_FOLDER
from plumbob.trainers.metrics.stage_result import FinishedStages, StageResult, StageSummary

EVAL = "eval"
"""The last stage."""


@dataclass(frozen=True)
class StageFolders:
    """Folders that stages hand to one another, below the pipeline's."""

    pretrained: str
    encoder: str
    sft: str
    reward_model: str
    online: str
    dpo: str


def stage_folders(run: PipelineRun, folder: Path) -> StageFolders:
    new_policy, new_encoder = (
        isinstance(run.policy.model, NewLlamaSettings),
        isinstance(run.reward.model, NewBertSettings),
    )
    return StageFolders(
        pretrained=str(folder / "pretrain/policy") if new_policy else str(run.policy.model),
        encoder=str(folder / "pretrain-encoder/encoder") if new_encoder else str(run.reward.model),
        sft=str(folder / "sft/policy"),
        reward_model=str(folder / "reward/reward_model"),
        online=str(folder / online_stage(run, folder) / "policy"),
        dpo=str(folder / "dpo/policy"),
    )


def online_stage(run: PipelineRun, folder: Path) -> str:
    """What its stage of online alignment is called: as its algorithm is, or `ppo` where an older run called it that."""
    return "ppo" if (folder / "ppo").exists() else algorithm_of(run.online.estimator)


class Pipeline:
    """The runs of the stages of one pipeline: their settings come from its own, their input from one another."""

    def __init__(self, run: PipelineRun, folder: Path, files: Files) -> None:
        self._run, self._files, self._folders = run, files, stage_folders(run, folder)
        self.online_stage = online_stage(run, folder)
        self._shared = {"seed": run.seed, "storage": run.storage, "cluster": run.cluster}
        self._common = self._shared | {"learner": run.learner}
        # The files are the pipeline's own by now: read, checked, mapped, rendered and split.
        self._reading = {"rendered": True, "prompt_template": run.data.prompt_template}
        self._checked = {"checks": NO_DATA_CHECKS}
        self._split = self._reading | self._checked | {"heldout_fraction": run.data.heldout_fraction}
        self._prompt = self._reading | {"max_prompt_tokens": run.data.max_prompt_tokens}
        self._lengths = self._prompt | {"max_response_tokens": run.data.max_response_tokens}
        self._pairs = self._checked | {"pairs": files.pairs, "heldout_pairs": files.heldout_pairs}
        self._base = {"dtype": run.policy.dtype, "trust_remote_code": run.policy.trust_remote_code}
        self._frozen = self._base | {"quantization": run.policy.quantization}

    def pretrain(self) -> PretrainRun:
        return PretrainRun(
            name="pretrain",
            **self._common,
            data=TextDataSettings(text=self._files.text, **self._split),
            policy=PretrainedPolicySettings(model=self._run.policy.model, **self._base),
            pretrain=self._run.pretrain,
        )

    def pretrain_encoder(self) -> PretrainEncoderRun:
        return PretrainEncoderRun(
            name="pretrain-encoder",
            **self._common,
            data=TextDataSettings(text=self._files.text, **self._split),
            reward=EncoderSettings(model=self._run.reward.model),
            pretrain=self._run.pretrain_encoder,
        )

    def sft(self) -> SftRun:
        return SftRun(
            name="sft",
            **self._common,
            data=DemonstrationDataSettings(demonstrations=self._files.demonstrations, **(self._split | self._lengths)),
            policy=PolicySettings(model=self._folders.pretrained, tuning=self._run.policy.sft_tuning, **self._frozen),
            sft=self._run.sft,
        )

    def reward(self) -> RewardRun:
        return RewardRun(
            name="reward",
            **self._common,
            data=FeedbackDataSettings(**self._pairs, **self._prompt),
            reward=self._run.reward.encoder_from(self._folders.encoder),
            calibration=CalibrationSettings(
                policy=self._folders.sft, num_prompts=self._run.calibration_prompts, **self._frozen
            ),
            rollout=self._run.rollout,
            reward_training=self._run.reward_training,
        )

    def online(self) -> OnlineRun:
        return OnlineRun(
            name=self.online_stage,
            **self._common,
            data=PromptDataSettings(
                prompts=self._files.prompts,
                heldout_prompts=self._files.heldout_prompts,
                **(self._checked | self._prompt),
            ),
            policy=AlignedPolicySettings(model=self._folders.sft, tuning=self._run.policy.tuning, **self._frozen),
            reward=self._run.reward.trained(self._folders.reward_model),
            bias=self._run.bias,
            rollout=self._run.rollout,
            online=self._run.online,
        )

    def dpo(self) -> DpoRun:
        tuning = self._run.policy.tuning
        if isinstance(tuning, WeightTuning):
            tuning = tuning.without_critic()
        return DpoRun(
            name="dpo",
            **self._common,
            data=TokenizedPairDataSettings(**self._pairs, **self._lengths),
            policy=AlignedPolicySettings(model=self._folders.sft, tuning=tuning, **self._frozen),
            dpo=self._run.dpo,
        )

    def evaluation(self) -> EvalRun:
        return EvalRun(
            name=EVAL,
            **self._shared,
            learner=LearnerRankSettings(**self._run.learner.model_dump(include=set(LearnerRankSettings.model_fields))),
            data=EvalDataSettings(prompts=self._files.heldout_prompts, **self._prompt),
            policy=EvaluatedPolicySettings(model=self._folders.online, baseline=self._folders.sft, **self._frozen),
            reward=self._run.reward.trained(self._folders.reward_model),
            rollout=self._run.rollout,
            evaluation=PolicyEvaluationSettings(**self._run.evaluation.model_dump()),
        )


@dataclass(frozen=True)
class PipelineResult(FinishedStages):
    """What the stages of a pipeline ended with, each as it left it.

    Attributes:
        stages: stage -> its own summary, in the order in which they ran; the evaluation's has `policies`, of the stages
            that made them.
        noise_ceiling: accuracy of the best predictor of the held-out preferences; None where it is not known.
        notes: sentences about rows that were left out.
    """

    noise_ceiling: float | None
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Stage -> all that is known of it, as `summary.json` has it."""
        data = {"data": {"notes": list(self.notes)}} if self.notes else {}
        measured = self.stages[EVAL].result
        evaluated = replace(self.stages[EVAL], result=replace(measured, policies=None))
        found = {name: summary.as_dict() for name, summary in {**self.stages, EVAL: evaluated}.items()}
        policies = measured.policies or {}
        ceiling = {} if self.noise_ceiling is None else {"reward": {"noise_ceiling": self.noise_ceiling}}
        return data | {name: {**own, **ceiling.get(name, {}), **policies.get(name, {})} for name, own in found.items()}


def run_pipeline(run: PipelineRun, prepared: PreparedFiles, context: StageContext) -> PipelineResult:
    """Every stage that has not already ended in this folder."""
    files = prepared(context.folder / "data")
    for note in files.notes:
        context.listener.notify("data", note)
    summaries = {name: _run_unless_done(name, stage, context) for name, stage in _stages(run, files, context)}
    return PipelineResult(summaries, files.noise_ceiling, files.notes)


def _stages(run: PipelineRun, files: Files, context: StageContext) -> list[tuple[str, StageBody]]:
    """In order. Each is prepared when it begins: its input is what those before it left."""
    stages = Pipeline(run, context.folder, files)
    first: list[tuple[str, StageBody]] = []
    if isinstance(run.policy.model, NewLlamaSettings):
        first.append(("pretrain", lambda inner: prepare(stages.pretrain())(inner)))
    if isinstance(run.reward.model, NewBertSettings):
        first.append(("pretrain-encoder", lambda inner: prepare(stages.pretrain_encoder())(inner)))
    return [
        *first,
        ("sft", lambda inner: prepare(stages.sft())(inner)),
        ("reward", lambda inner: reward_stage.prepare(stages.reward(), files.dialogue_form)(inner)),
        (stages.online_stage, lambda inner: prepare(stages.online(), files.gold_reward)(inner)),
        ("dpo", lambda inner: prepare(stages.dpo())(inner)),
        (EVAL, lambda inner: _evaluate(stages.evaluation(), (stages.online_stage, "dpo"), files, context, inner)),
    ]


def _run_unless_done(name: str, stage: StageBody, context: StageContext) -> StageSummary:
    """The stage's summary: from its folder when an earlier, interrupted run of the pipeline ended it."""
    folder = context.folder / name
    if (folder / SUMMARY_FILE).exists():
        return StageSummary.from_dict(json.loads((folder / SUMMARY_FILE).read_text()))
    summary = run_stage(stage, replace(context, folder=folder, stage=name))
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / SUMMARY_FILE, json.dumps(summary.as_dict(), indent=2) + "\n")
    return summary


def _evaluate(
    run: EvalRun, aligned: tuple[str, ...], files: Files, outer: StageContext, inner: StageContext
) -> StageResult:
    """The policies that the stages `aligned` made, beside the one that they began from."""
    data = prepare_eval(run)
    policy = data.policy
    assert policy is not None, "a pipeline evaluates policies"
    for note in data.notes:
        inner.listener.notify(EVAL, note)
    scorer = inner.session.start_scorers(run.reward, inner.folder / ANSWERS_FOLDER)
    base = policy.opened.ref
    policies = {
        name: open_policy(replace(base, name=str(outer.folder / name / "policy"), setting=name)) for name in aligned
    }
    measured = measure_policies(run, policy, inner.session, scorer, policies, files.gold_reward)
    baseline = measured["baseline"]
    write_samples(
        outer.folder / SAMPLES_FILE,
        {"sft": baseline} | {name: measured[name] for name in policies},
        run.evaluation.num_shown,
    )
    shown = {"sft": response_metrics(baseline)} | {name: policy_metrics(measured[name], baseline) for name in policies}
    return StageResult({"num_prompts": len(policy.prompts)}, data.notes, shown)
