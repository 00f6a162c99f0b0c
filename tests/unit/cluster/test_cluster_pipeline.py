"""How the stages of a pipeline hand over: each one's settings name the folders of those before it."""

from pathlib import Path
from typing import Any

import pytest

from cluster import pipeline
from cluster.files import Files
from cluster.pipeline import Pipeline, handover, run_pipeline
from cluster.stages import Scene
from configs.schema import PipelineRun
from configs.sections import NewBert, NewLlama, PipelineData, PipelinePolicy, PipelineScorer

FILES = Files("text", "shown", "pairs", "heldout_pairs", "asked", "heldout_asked", None, 0.9, ())
FOLDER = Path("/runs/mine")


def settings(policy: Any, encoder: Any) -> PipelineRun:
    return PipelineRun(
        seed=4,
        data=PipelineData(pairs="raw", columns={"prompt": "question"}, overlap="drop", max_answer_tokens=33),
        policy=PipelinePolicy(model=policy, dtype="bfloat16"),
        reward=PipelineScorer(model=encoder, max_tokens=77, num_workers=2),
    )


def test_every_stage_gets_the_folder_of_the_one_before() -> None:
    stages = Pipeline(settings(NewLlama(), NewBert()), FOLDER, FILES)
    assert stages.pretrain().data.text == stages.pretrain_encoder().data.text == "text"
    assert stages.sft().policy.model == "/runs/mine/pretrain/policy"
    assert stages.reward().reward.model == "/runs/mine/pretrain-encoder/encoder"
    assert stages.reward().calibration.policy == "/runs/mine/sft/policy"
    assert stages.ppo().policy.model == stages.dpo().policy.model == "/runs/mine/sft/policy"
    assert stages.ppo().reward.model == stages.evaluation().reward.model == "/runs/mine/reward/reward_model"
    evaluated = stages.evaluation().policy
    assert evaluated is not None
    assert (evaluated.model, evaluated.baseline) == ("/runs/mine/ppo/policy", "/runs/mine/sft/policy")


def test_every_stage_gets_its_side_of_the_split() -> None:
    stages = Pipeline(settings(NewLlama(), NewBert()), FOLDER, FILES)
    assert (stages.ppo().data.prompts, stages.ppo().data.heldout_prompts) == ("asked", "heldout_asked")
    assert (stages.dpo().data.pairs, stages.dpo().data.heldout_pairs) == ("pairs", "heldout_pairs")
    assert (stages.reward().data.pairs, stages.reward().data.heldout_pairs) == ("pairs", "heldout_pairs")
    assert stages.evaluation().data.prompts == "heldout_asked"
    assert stages.sft().data.demonstrations == "shown"


def test_common_settings_reach_every_stage_and_the_mapping_of_columns_none() -> None:
    stages = Pipeline(settings(NewLlama(), NewBert()), FOLDER, FILES)
    runs: list[Any] = [stages.sft(), stages.reward(), stages.ppo(), stages.dpo(), stages.evaluation()]
    assert {run.seed for run in runs} == {4}
    # The files are the pipeline's own by now: mapped, and split.
    assert all(run.data.columns == {} and run.data.max_answer_tokens == 33 for run in runs)
    assert stages.ppo().policy.dtype == stages.reward().calibration.dtype == "bfloat16"
    assert (stages.ppo().reward.max_tokens, stages.ppo().reward.num_workers) == (77, 2)


def test_a_named_model_is_taken_as_it_is() -> None:
    run = settings("team/llama", "team/bert")
    assert handover(run, FOLDER).pretrained == "team/llama" and handover(run, FOLDER).encoder == "team/bert"
    stages = Pipeline(run, FOLDER, FILES)
    assert stages.sft().policy.model == "team/llama" and stages.reward().reward.model == "team/bert"


@pytest.mark.parametrize(
    "policy, encoder, first",
    [
        (NewLlama(), NewBert(), ["pretrain", "pretrain-encoder"]),
        ("team/llama", NewBert(), ["pretrain-encoder"]),
        (NewLlama(), "team/bert", ["pretrain"]),
        ("team/llama", "team/bert", []),
    ],
)
def test_only_a_new_model_is_pre_trained_and_an_ended_stage_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: Any, encoder: Any, first: list[str]
) -> None:
    ran: list[str] = []

    def run_stage(body: Any, scene: Scene, name: str) -> dict[str, Any]:
        assert scene.folder == tmp_path / name
        ran.append(name)
        return {"policies": {"ppo": {"gold_score": 1.0}}} if name == "eval" else {"seconds": 2.0}

    monkeypatch.setattr(pipeline, "run_stage", run_stage)
    nothing: Any = None
    scene = Scene(nothing, tmp_path, nothing, nothing)
    figures = run_pipeline(settings(policy, encoder), lambda folder: FILES, scene)
    assert ran == [*first, "sft", "reward", "ppo", "dpo", "eval"]
    assert figures["ppo"] == {"seconds": 2.0, "gold_score": 1.0}
    assert figures["reward"] == {"seconds": 2.0, "noise_ceiling": 0.9}
    # Interrupted in the reward stage, the next run makes that one again and no other.
    (tmp_path / "reward" / "summary.json").unlink()
    ran.clear()
    assert run_pipeline(settings(policy, encoder), lambda folder: FILES, scene) == figures
    assert ran == ["reward"]
