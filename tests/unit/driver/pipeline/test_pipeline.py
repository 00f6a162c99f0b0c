"""How the stages of a pipeline hand over: each one's settings name the folders of those before it."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from plumbob.configs.runs import PipelineRun
from plumbob.configs.settings.algorithms import Grpo
from plumbob.configs.settings.data import PipelineDataSettings
from plumbob.configs.settings.models import NewBertSettings, NewLlamaSettings, PipelinePolicySettings
from plumbob.configs.settings.rewards import PipelineScorerSettings
from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.configs.settings.tuning.encoders import EncoderLora
from plumbob.configs.settings.tuning.quantization import Nf4Quantization
from plumbob.configs.settings.tuning.weights import FullTuning
from plumbob.data.prompts import EncodedPrompt
from plumbob.driver.measures.policy_metrics import ComparedResponses
from plumbob.driver.pipeline import pipeline
from plumbob.driver.pipeline.pipeline import Pipeline, PipelineResult, run_pipeline, stage_folders
from plumbob.driver.pipeline.pipeline_files import Files
from plumbob.driver.stages.evaluating.evaluation_input import EvalInput, EvaluatedPolicy
from plumbob.driver.stages.stage import StageContext
from plumbob.rollout.rollout_records import Rollout, SampleRequest
from plumbob.trainers.metrics.stage_result import StageResult, StageSummary
from tests.support.opened_models import opened_policy
from tests.support.tiny_policy import write_policy

FILES = Files("text", "shown", "pairs", "heldout_pairs", "asked", "heldout_asked", None, 0.9, ())
FOLDER = Path("/runs/mine")


def settings(policy: Any, encoder: Any) -> PipelineRun:
    return PipelineRun(
        seed=4,
        data=PipelineDataSettings(pairs="raw", columns={"prompt": "question"}, overlap="drop", max_response_tokens=33),
        policy=PipelinePolicySettings(model=policy, dtype="bfloat16"),
        reward=PipelineScorerSettings(model=encoder, max_tokens=77, num_workers=2),
    )


def test_every_stage_gets_the_folder_of_the_one_before() -> None:
    stages = Pipeline(settings(NewLlamaSettings(), NewBertSettings()), FOLDER, FILES)
    assert stages.pretrain().data.text == stages.pretrain_encoder().data.text == "text"
    assert stages.sft().policy.model == "/runs/mine/pretrain/policy"
    assert stages.reward().reward.model == "/runs/mine/pretrain-encoder/encoder"
    assert stages.reward().calibration.policy == "/runs/mine/sft/policy"
    assert stages.online().policy.model == stages.dpo().policy.model == "/runs/mine/sft/policy"
    assert stages.online().reward.model == stages.evaluation().reward.model == "/runs/mine/reward/reward_model"
    evaluated = stages.evaluation().policy
    assert evaluated is not None
    assert (evaluated.model, evaluated.baseline) == ("/runs/mine/ppo/policy", "/runs/mine/sft/policy")


def test_bits_of_frozen_weights_are_handed_to_every_stage() -> None:
    bits, lora = Nf4Quantization(), LoraTuning()
    given = settings("m", "e")
    policy = PipelinePolicySettings(model="m", sft_tuning=lora, quantization=bits)
    reward = PipelineScorerSettings(model="e", tuning=EncoderLora(), quantization=bits)
    stages = Pipeline(given.model_copy(update={"policy": policy, "reward": reward}), FOLDER, FILES)
    evaluated, trained = stages.evaluation().policy, stages.reward()
    assert evaluated is not None and evaluated.baseline_ref is not None and trained.calibration.policy_ref is not None
    refs = [stages.sft().policy.ref, stages.online().policy.ref, stages.dpo().policy.ref, evaluated.ref]
    refs += [evaluated.baseline_ref, trained.calibration.policy_ref, trained.reward.existing_encoder]
    assert [ref.quantization for ref in refs] == [bits] * 7
    assert trained.reward.tuning == EncoderLora()
    # What is written of the reward model are floats.
    assert [model.quantization for model in stages.online().reward.reward.models] == [None]  # type: ignore[union-attr]


def test_the_stage_of_online_alignment_is_called_as_its_algorithm_is(tmp_path: Path) -> None:
    run = settings(NewLlamaSettings(), NewBertSettings())
    grpo = run.model_copy(
        update={"online": run.online.model_copy(update={"estimator": Grpo(), "samples_per_prompt": 2})}
    )
    for asked, name in ((run, "ppo"), (grpo, "grpo")):
        stages = Pipeline(asked, tmp_path, FILES)
        assert (stages.online_stage, stages.online().name, stages.online().stage) == (name, name, name)
        evaluated = stages.evaluation().policy
        assert evaluated is not None and evaluated.model == f"{tmp_path}/{name}/policy"
    # A run that began when every such stage was called ppo continues in its folder.
    (tmp_path / "ppo").mkdir()
    assert Pipeline(grpo, tmp_path, FILES).online_stage == "ppo"


def test_a_head_for_the_critic_reaches_the_stage_that_has_one() -> None:
    run = settings(NewLlamaSettings(), NewBertSettings())
    policy = run.policy.model_copy(update={"tuning": FullTuning(critic="head")})
    stages = Pipeline(run.model_copy(update={"policy": policy}), FOLDER, FILES)
    assert (stages.online().policy.tuning, stages.dpo().policy.tuning) == (FullTuning(critic="head"), FullTuning())


def test_every_stage_gets_its_side_of_the_split() -> None:
    stages = Pipeline(settings(NewLlamaSettings(), NewBertSettings()), FOLDER, FILES)
    assert (stages.online().data.prompts, stages.online().data.heldout_prompts) == ("asked", "heldout_asked")
    assert (stages.dpo().data.pairs, stages.dpo().data.heldout_pairs) == ("pairs", "heldout_pairs")
    assert (stages.reward().data.pairs, stages.reward().data.heldout_pairs) == ("pairs", "heldout_pairs")
    assert stages.evaluation().data.prompts == "heldout_asked"
    assert stages.sft().data.demonstrations == "shown"


def test_common_settings_reach_every_stage_and_the_mapping_of_columns_none() -> None:
    stages = Pipeline(settings(NewLlamaSettings(), NewBertSettings()), FOLDER, FILES)
    runs: list[Any] = [stages.sft(), stages.reward(), stages.online(), stages.dpo(), stages.evaluation()]
    assert {run.seed for run in runs} == {4}
    # The files are the pipeline's own by now: mapped, and split.
    assert all(run.data.columns == {} for run in runs)
    assert {run.data.max_response_tokens for run in (stages.sft(), stages.dpo())} == {33}
    assert stages.online().policy.dtype == stages.reward().calibration.dtype == "bfloat16"
    assert (stages.online().reward.max_tokens, stages.online().reward.num_workers) == (77, 2)


def test_a_named_model_is_taken_as_it_is() -> None:
    run = settings("team/llama", "team/bert")
    assert stage_folders(run, FOLDER).pretrained == "team/llama" and stage_folders(run, FOLDER).encoder == "team/bert"
    stages = Pipeline(run, FOLDER, FILES)
    assert stages.sft().policy.model == "team/llama" and stages.reward().reward.model == "team/bert"


@pytest.mark.parametrize(
    "policy, encoder, first",
    [
        (NewLlamaSettings(), NewBertSettings(), ["pretrain", "pretrain-encoder"]),
        ("team/llama", NewBertSettings(), ["pretrain-encoder"]),
        (NewLlamaSettings(), "team/bert", ["pretrain"]),
        ("team/llama", "team/bert", []),
    ],
)
def test_only_a_new_model_is_pre_trained_and_an_ended_stage_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: Any, encoder: Any, first: list[str]
) -> None:
    ran: list[str] = []

    def run_stage(body: Any, context: StageContext) -> StageSummary:
        name = context.stage
        assert context.folder == tmp_path / name
        ran.append(name)
        if name == "eval":
            return StageSummary(StageResult({}, policies={"ppo": {"gold_score": 1.0}}), 2.0, 0.5)
        return StageSummary(StageResult({"loss": 3.0}, ("a note",) if name == "sft" else None), 2.0, 0.5)

    monkeypatch.setattr(pipeline, "run_stage", run_stage)
    nothing: Any = None
    scene = StageContext(nothing, nothing, tmp_path, nothing, nothing, "pipeline")
    metrics = run_pipeline(settings(policy, encoder), lambda folder: FILES, scene).as_dict()
    assert ran == [*first, "sft", "reward", "ppo", "dpo", "eval"]
    spent = {"seconds": 2.0, "peak_memory_gib": 0.5}
    assert metrics["sft"] == {"loss": 3.0, "notes": ["a note"], **spent}
    assert metrics["ppo"] == {"loss": 3.0, **spent, "gold_score": 1.0}
    assert metrics["reward"] == {"loss": 3.0, **spent, "noise_ceiling": 0.9}
    assert metrics["eval"] == spent
    assert json.loads((tmp_path / "eval" / "summary.json").read_text()) == {
        "policies": {"ppo": {"gold_score": 1.0}},
        **spent,
    }
    # Interrupted in the reward stage, the next run makes that one again and no other.
    (tmp_path / "reward" / "summary.json").unlink()
    ran.clear()
    assert run_pipeline(settings(policy, encoder), lambda folder: FILES, scene).as_dict() == metrics
    assert ran == ["reward"]


def test_a_summary_adds_to_a_stage_what_others_know_of_it_and_changes_none() -> None:
    policies = {"sft": {"reward": 1.0}, "ppo": {"reward": 2.0}}
    results = {
        "sft": StageResult({"loss": 1.0}),
        "reward": StageResult({"accuracy": 0.8}),
        "ppo": StageResult({"kl": 0.5}),
        "eval": StageResult({}, policies=policies),
    }
    stages = {name: StageSummary(result, 2.0, 0.5) for name, result in results.items()}
    spent = {"seconds": 2.0, "peak_memory_gib": 0.5}
    assert PipelineResult(stages, 0.9, ("3 rows skipped",)).as_dict() == {
        "data": {"notes": ["3 rows skipped"]},
        "sft": {"loss": 1.0, "reward": 1.0, **spent},
        "reward": {"accuracy": 0.8, "noise_ceiling": 0.9, **spent},
        "ppo": {"kl": 0.5, "reward": 2.0, **spent},
        "eval": spent,
    }
    assert results["eval"].policies == {"sft": {"reward": 1.0}, "ppo": {"reward": 2.0}}
    assert list(PipelineResult(stages, None, ()).as_dict()) == ["sft", "reward", "ppo", "eval"]


class Said:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, str]] = []

    def notify(self, stage: str, note: str) -> None:
        self.notes.append((stage, note))


def ended(body: Any, context: StageContext) -> StageSummary:
    """A stage that has come to nothing."""
    return StageSummary(StageResult({}, policies={} if context.stage == "eval" else None), 1.0, 1.0)


def test_notes_about_the_files_are_kept_with_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "run_stage", ended)
    said: Any = Said()
    nothing: Any = None
    files = replace(FILES, notes=("3 rows skipped",))
    metrics = run_pipeline(
        settings("team/llama", "team/bert"),
        lambda folder: files,
        StageContext(nothing, nothing, tmp_path, said, nothing, "pipeline"),
    ).as_dict()
    assert list(metrics) == ["data", "sft", "reward", "ppo", "dpo", "eval"]
    assert metrics["data"] == {"notes": ["3 rows skipped"]}
    assert said.notes == [("data", "3 rows skipped")]


def measured(score: float, num_tokens: int, finish_reason: Any) -> ComparedResponses:
    """The same response to two prompts."""
    ids = np.zeros(num_tokens, dtype=np.int32)
    request = SampleRequest("id", "group", 0, 0, "Who?", ids)
    logprobs, written = np.zeros(num_tokens, dtype=np.float32), np.ones(num_tokens, dtype=np.bool_)
    rollout = Rollout(request, finish_reason, "Me.", ids, logprobs, ids, written, "worker")
    scores = np.full((2, 1), score)
    return ComparedResponses((rollout, rollout), scores, scores / 2, np.zeros((2, 1)))


def test_the_baseline_gets_every_figure_that_is_no_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"baseline": measured(1.0, 7, "length"), "ppo": measured(3.0, 5, "stop"), "dpo": measured(2.0, 4, "stop")}
    prompt = EncodedPrompt("id", "Who?", np.zeros(1, dtype=np.int32))
    note = "1 of 2 prompts dropped"
    opened = opened_policy(write_policy(tmp_path / "base"))
    policy = EvaluatedPolicy(opened, opened, (prompt, prompt), 0)
    monkeypatch.setattr(pipeline, "prepare_eval", lambda run: EvalInput((), policy, (note,)))
    monkeypatch.setattr(pipeline, "measure_policies", lambda *_: found)
    monkeypatch.setattr(pipeline, "open_policy", lambda ref: opened)
    session: Any = SimpleNamespace(start_scorers=lambda *_: None)
    said: Any = Said()
    nothing: Any = None
    scene = StageContext(session, nothing, tmp_path, said, nothing, "pipeline")
    run = Pipeline(settings("team/llama", "team/bert"), tmp_path, FILES).evaluation()
    result = pipeline._evaluate(run, ("ppo", "dpo"), FILES, scene, scene)
    policies = result.policies or {}
    own = {"reward": 1.0, "answer_tokens": 7.0, "missing_eos_share": 1.0, "gold_score": 0.5}
    assert policies["sft"] == own
    assert (policies["ppo"]["answer_tokens"], policies["ppo"]["missing_eos_share"]) == (5.0, 0.0)
    assert set(policies["dpo"]) > set(own)
    assert result.notes == (note,) and said.notes == [("eval", note)]
    sample, _ = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert list(sample["answers"]) == ["sft", "ppo", "dpo"]
