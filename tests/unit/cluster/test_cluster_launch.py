"""What a run is given before it starts, and what a failed one is told."""

from pathlib import Path

import pytest

from cluster.launch import how_to_go_on, plan, with_absolute_paths
from configs.errors import RunFailed, UserError
from configs.inputs import EvalData, PipelineData, PromptData, Replay, Retention, TextData, ToyWorld
from configs.models import (
    AlignedPolicy,
    EvaluatedPolicy,
    LoraTuning,
    NewBert,
    NewLlama,
    PipelinePolicy,
    PretrainedPolicy,
)
from configs.roles import PipelineScorer, Scorer, Storage
from configs.schema import EvalRun, PipelineRun, PpoRun, PretrainRun
from reward.scorer import ScoreError
from trainers.errors import NotFinite


def test_folders_of_models_and_files_become_absolute_and_hub_names_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("policy", "scorer"):
        (tmp_path / name).mkdir()
    run = EvalRun(
        data=EvalData(prompts="policy"),
        policy=EvaluatedPolicy(model="./policy", baseline="team/base"),
        reward=Scorer(model="scorer", ensemble=("./policy", "team/other")),
    )
    found = with_absolute_paths(run)
    assert found.policy is not None
    assert (found.policy.model, found.policy.baseline) == (str(tmp_path / "policy"), "team/base")
    assert found.reward.model == str(tmp_path / "scorer")
    assert found.reward.ensemble == (str(tmp_path / "policy"), "team/other")
    assert found.data.prompts == str(tmp_path / "policy") and found.data.pairs is None
    patterns = TextData(text="parts/*.jsonl", heldout_text="~/t.txt")
    data = with_absolute_paths(PretrainRun(data=patterns, policy=PretrainedPolicy(model=NewLlama()))).data
    assert (data.text, data.heldout_text) == (str(tmp_path / "parts/*.jsonl"), str(Path.home() / "t.txt"))
    new = PretrainRun(data=TextData(text="/t"), policy=PretrainedPolicy(model=NewLlama()))
    assert with_absolute_paths(new) == new
    ppo = PpoRun(
        data=PromptData(prompts="p"),
        policy=AlignedPolicy(model="policy"),
        reward=Scorer(model="scorer"),
        judge=Scorer(model="./scorer"),
        retention=Retention(text="kept.txt"),
        replay=Replay(text="again.txt"),
    )
    whole = with_absolute_paths(ppo)
    assert whole.judge is not None and whole.judge.model == str(tmp_path / "scorer")
    assert whole.retention is not None and whole.retention.text == str(tmp_path / "kept.txt")
    assert whole.replay is not None and whole.replay.text == str(tmp_path / "again.txt")


def test_a_plan_refuses_what_the_run_would() -> None:
    run = PipelineRun(
        data=PipelineData(toy=ToyWorld(num_texts=200, num_demonstrations=20, num_pairs=20, num_heldout_pairs=20)),
        policy=PipelinePolicy(model=NewLlama(max_positions=1024)),
        reward=PipelineScorer(model=NewBert()),
    )
    # One worker of each role, of half a CPU each.
    assert plan(run).num_cpus == 1.5
    wrong = PipelinePolicy(model=NewLlama(max_positions=1024), tuning=LoraTuning(targets=("nope",)))
    with pytest.raises(UserError, match=r"policy\.tuning\.targets: nope is no module in the new policy\.model"):
        plan(run.model_copy(update={"policy": wrong}))
    with pytest.raises(UserError, match=r"storage\.path: /proc/runs cannot"):
        plan(run.model_copy(update={"storage": Storage(path="/proc/runs")}))


def test_a_failed_run_is_told_to_resume_only_where_that_can_help(tmp_path: Path) -> None:
    assert "no checkpoint had been made" in how_to_go_on(tmp_path, RunFailed("a worker died"))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "latest").write_text("step-000003\n")
    assert how_to_go_on(tmp_path, RunFailed("a worker died")).endswith(f"go on with: plumbob resume {tmp_path}")
    for error in (NotFinite("the policy's loss is nan"), ScoreError("a score is not finite")):
        advice = how_to_go_on(tmp_path, error)
        assert "step-000003" in advice and "lower learning_rate" in advice and "plumbob resume" not in advice
