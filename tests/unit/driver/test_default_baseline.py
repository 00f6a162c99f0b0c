"""What an evaluated adapter is compared with where nobody says."""

from pathlib import Path

import pytest

from plumbob.configs.load_run import load_eval, load_run
from plumbob.configs.resolved_copy import write_resolved
from plumbob.configs.runs import EvalRun
from plumbob.core.errors import UserError
from plumbob.driver.default_baseline import with_default_baseline


def adapter(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    return folder


def baseline_of(policy: Path, *overrides: str) -> str | None:
    run = load_eval([f"policy.model={policy}", "data.prompts=p", "reward.model=r", *overrides])
    assert isinstance(run, EvalRun)
    found = with_default_baseline(run).policy
    assert found is not None
    return found.baseline


def dpo_from(began: Path | str, folder: Path) -> Path:
    write_resolved(load_run("dpo", [f"policy.model={began}", "data.pairs=p"]), folder)
    return adapter(folder / "policy")


def test_an_adapter_is_compared_with_what_its_run_began_from(tmp_path: Path) -> None:
    sft = adapter(tmp_path / "sft/policy")
    aligned = dpo_from(sft, tmp_path / "dpo")
    assert baseline_of(aligned) == str(sft)
    assert baseline_of(aligned, "policy.baseline=other") == "other"
    assert baseline_of(dpo_from("team/model", tmp_path / "from-hub")) == "team/model"


def test_each_policy_of_a_pipeline_is_compared_with_the_stage_before(tmp_path: Path) -> None:
    write_resolved(load_run("toy", ["online.estimator.kind=rloo", "online.samples_per_prompt=4"]), tmp_path)
    policies = {stage: adapter(tmp_path / stage / "policy") for stage in ("sft", "rloo", "dpo")}
    (tmp_path / "pretrain/policy").mkdir(parents=True)
    assert baseline_of(policies["dpo"]) == baseline_of(policies["rloo"]) == str(policies["sft"])
    assert baseline_of(policies["sft"]) == str(tmp_path / "pretrain/policy")


def test_what_no_run_made_is_compared_with_its_base(tmp_path: Path) -> None:
    aligned = dpo_from(tmp_path, tmp_path / "dpo")
    for copied in (tmp_path / "elsewhere/policy", aligned.parent / "checkpoint"):
        assert baseline_of(adapter(copied)) is None
    full = tmp_path / "full/policy"
    write_resolved(load_run("sft", [f"policy.model={tmp_path}", "data.demonstrations=d"]), full.parent)
    full.mkdir()
    assert baseline_of(full) is None


def test_what_a_run_began_from_and_is_gone_is_asked_for(tmp_path: Path) -> None:
    aligned = dpo_from(tmp_path / "gone", tmp_path / "dpo")
    with pytest.raises(UserError, match=r"gone, and that is not there any more; give .* policy\.baseline=FOLDER"):
        baseline_of(aligned)
    assert baseline_of(aligned, "policy.baseline=other") == "other"
