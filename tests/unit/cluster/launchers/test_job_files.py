"""What is sent to a cluster: the configuration as its driver takes it, and the source."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from plumbob.cluster.launchers.job_files import CONFIG_FILE, as_yaml, entrypoint, for_cluster, write_job
from plumbob.configs.load_run import load_run, preset_names
from plumbob.core.errors import UserError

ROOT = Path(__file__).parents[4]
SFT = ["policy.model=/models/base", "data.demonstrations=/data/d.jsonl"]


def test_the_sent_configuration_joins_the_cluster_and_names_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    run = load_run("sft", ["policy.model=base", "data.demonstrations=d.jsonl", "storage.path=/shared/runs"])
    run = run.model_copy(update={"cluster": run.cluster.model_copy(update={"num_cpus": 2, "wait_s": 20.0})})
    sent = for_cluster(run)
    assert (sent.cluster.address, sent.cluster.num_cpus, sent.cluster.wait_s) == ("auto", None, 20.0)
    assert for_cluster(run, wait_s=300).cluster.wait_s == 300
    written = yaml.safe_load(as_yaml(sent))
    assert written["policy"]["model"] == str(tmp_path / "base")
    assert written["data"]["demonstrations"] == str(tmp_path / "d.jsonl")


@pytest.mark.parametrize("path", ["runs", "~/runs", "./shared"])
def test_a_storage_path_that_only_one_host_would_know_is_refused(path: str) -> None:
    with pytest.raises(UserError, match=rf"^storage\.path={path}: .*absolute path that every host can read"):
        for_cluster(load_run("sft", [*SFT, f"storage.path={path}"]))


@pytest.mark.parametrize("preset", preset_names())
def test_the_sent_file_is_read_back_as_the_same_run(preset: str, tmp_path: Path) -> None:
    run = load_run(preset, [*paths_of(preset), "name=a b", "storage.path=/shared/runs", "seed=7"])
    sent = for_cluster(run)
    write_job(sent, tmp_path, with_source=False)
    assert [path.name for path in tmp_path.iterdir()] == [CONFIG_FILE]
    assert load_run(str(tmp_path / CONFIG_FILE)) == sent


def paths_of(preset: str) -> list[str]:
    """What the preset leaves to the user."""
    values = yaml.safe_load((ROOT / "configs/presets" / f"{preset}.yaml").read_text())
    policy, reward = "policy.model=/models/policy", "reward.model=/models/reward"
    kinds = {
        "pretrain": ["data.text=/data/t"],
        "pretrain-encoder": ["data.text=/data/t"],
        "sft": [policy, "data.demonstrations=/data/d"],
        "reward": [reward, "data.pairs=/data/p"],
        "dpo": [policy, "data.pairs=/data/p"],
        "kto": [policy, "data.labelled=/data/l"],
        "ppo": [policy, reward, "data.prompts=/data/p"],
        "pipeline": [] if preset == "toy" else ["data.pairs=/data/p"],
    }
    return kinds[values["kind"]]


def test_a_folder_that_holds_the_source_runs_the_program(tmp_path: Path) -> None:
    write_job(load_run("sft", SFT), tmp_path, with_source=True)
    command = [sys.executable, "-P", "-c", "import plumbob.console.cli; print(plumbob.console.cli.__file__)"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == str(tmp_path / "plumbob/console/cli.py")
    names = {path.name for path in tmp_path.rglob("*.yaml")}
    assert names == {CONFIG_FILE, *(f"{name}.yaml" for name in preset_names())}


def test_the_command_that_the_head_starts() -> None:
    assert entrypoint(with_source=False, resumes=False, as_json=False) == "plumbob run run.yaml"
    assert entrypoint(with_source=True, resumes=True, as_json=True) == (
        "python -m plumbob.console.cli run run.yaml --resume --json"
    )
