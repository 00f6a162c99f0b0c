"""What is sent to a cluster: the configuration as its driver takes it, and the source."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from plumbob.cluster.launchers.job_files import CONFIG_FILE, as_yaml, entrypoint, for_cluster, write_job
from plumbob.cluster.workers.code_digest import SOURCE, source_files
from plumbob.configs.load_run import load_run, preset_names
from plumbob.core.errors import UserError

ROOT = Path(__file__).parents[3]
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


@pytest.mark.parametrize("path", ["runs", "./shared"])
def test_a_storage_path_that_only_one_host_would_know_is_refused(path: str) -> None:
    with pytest.raises(UserError, match=rf"^storage\.path={path}: .*absolute path that every host can read"):
        for_cluster(load_run("sft", [*SFT, f"storage.path={path}"]))


def test_a_home_folder_is_that_of_who_submits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/shared/me")
    assert for_cluster(load_run("sft", [*SFT, "storage.path=~/runs"])).storage.path == "/shared/me/runs"


@pytest.mark.parametrize("preset", preset_names())
def test_the_sent_file_is_read_back_as_the_same_run(preset: str, tmp_path: Path) -> None:
    run = load_run(preset, [*paths_of(preset), "name=a b", "storage.path=/shared/runs", "seed=7"])
    sent = for_cluster(run)
    write_job(sent, tmp_path, with_source=False)
    assert [path.name for path in tmp_path.iterdir()] == [CONFIG_FILE]
    assert load_run(str(tmp_path / CONFIG_FILE)) == sent


def paths_of(preset: str) -> list[str]:
    """What the preset leaves to the user."""
    values = yaml.safe_load((ROOT / "configs" / f"{preset}.yaml").read_text())
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


def test_the_source_is_whole_and_nothing_but_the_source(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for path in ("configs/load.py", "configs/toy.yaml", "console/verify/table.py", "data/__pycache__/a.pyc"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    for path in ("runs/a/resolved.json", "runs/run.py", ".venv/lib/x.py", "data/pairs.jsonl.gz", "tests/test_a.py"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    found = {path.relative_to(root).as_posix() for path in source_files(root)}
    assert found == {"configs/load.py", "configs/toy.yaml", "console/verify/table.py"}
    # A folder that holds it runs the program.
    job = tmp_path / "job"
    job.mkdir()
    write_job(load_run("sft", SFT), job, with_source=True)
    command = [sys.executable, "-P", "-c", "import console.cli; print(plumbob.console.cli.__file__)"]
    done = subprocess.run(
        command, cwd=job, env={"PYTHONPATH": str(job)}, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == str(job / "console/cli.py")
    assert {path.name for path in job.rglob("*.yaml")} == {CONFIG_FILE, *(f"{name}.yaml" for name in preset_names())}


def test_the_source_is_every_package_of_the_project() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert set(SOURCE) == {package.partition(".")[0] for package in packages}


def test_the_command_that_the_head_starts() -> None:
    assert entrypoint(with_source=False, resumes=False, as_json=False) == "plumbob run run.yaml"
    assert entrypoint(with_source=True, resumes=True, as_json=True) == (
        "python -m plumbob.console.cli run run.yaml --resume --json"
    )
