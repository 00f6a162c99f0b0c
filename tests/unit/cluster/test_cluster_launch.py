"""What a run is given before it starts, and what a failed one is told."""

from pathlib import Path

import pytest

from cluster.launch import how_to_go_on, with_absolute_models
from configs.errors import RunFailed
from configs.inputs import EvalData, PromptData, TextData
from configs.models import AlignedPolicy, EvaluatedPolicy, NewLlama, PretrainedPolicy
from configs.roles import Scorer
from configs.schema import EvalRun, PpoRun, PretrainRun
from reward.scorer import ScoreError
from trainers.errors import NotFinite


def test_folders_of_models_become_absolute_and_hub_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("policy", "scorer"):
        (tmp_path / name).mkdir()
    run = EvalRun(
        data=EvalData(prompts="policy"),
        policy=EvaluatedPolicy(model="./policy", baseline="team/base"),
        reward=Scorer(model="scorer", ensemble=("./policy", "team/other")),
    )
    found = with_absolute_models(run)
    assert found.policy is not None
    assert (found.policy.model, found.policy.baseline) == (str(tmp_path / "policy"), "team/base")
    assert found.reward.model == str(tmp_path / "scorer")
    assert found.reward.ensemble == (str(tmp_path / "policy"), "team/other")
    assert found.data == run.data  # Read by this process, in whose folder it is.
    new = PretrainRun(data=TextData(text="t"), policy=PretrainedPolicy(model=NewLlama()))
    assert with_absolute_models(new) == new
    ppo = PpoRun(
        data=PromptData(prompts="p"),
        policy=AlignedPolicy(model="policy"),
        reward=Scorer(model="scorer"),
        judge=Scorer(model="./scorer"),
    )
    judge = with_absolute_models(ppo).judge
    assert judge is not None and judge.model == str(tmp_path / "scorer")


def test_a_failed_run_is_told_to_resume_only_where_that_can_help(tmp_path: Path) -> None:
    assert "no checkpoint had been made" in how_to_go_on(tmp_path, RunFailed("a worker died"))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "latest").write_text("step-000003\n")
    assert how_to_go_on(tmp_path, RunFailed("a worker died")).endswith(f"go on with: plumbob resume {tmp_path}")
    for error in (NotFinite("the policy's loss is nan"), ScoreError("a score is not finite")):
        advice = how_to_go_on(tmp_path, error)
        assert "step-000003" in advice and "lower learning_rate" in advice and "plumbob resume" not in advice
