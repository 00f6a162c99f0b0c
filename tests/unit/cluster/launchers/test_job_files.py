"""Files of a submitted job: the configuration as its driver takes it, and the source."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from plumbob.cluster.launchers.job_files import CONFIG_FILE, as_yaml, entrypoint, for_cluster, write_job
from plumbob.configs.load_run import PRESETS, load_run, preset_names
from plumbob.configs.resume_rules import changes, check_changes
from plumbob.configs.runs import SftRun
from plumbob.core.errors import UserError
from tests.support.source_tree import source_files

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


def test_what_kuberay_alone_is_told_is_not_sent_to_the_run() -> None:
    """It would stand in the run's folder and its report, which more people read than the manifest."""
    env = "cluster.kuberay.env={WANDB_API_KEY: not-for-all}"
    run = load_run("sft", [*SFT, "storage.path=/shared/runs", "cluster.wait_s=20", env])
    written = as_yaml(for_cluster(run))
    assert "not-for-all" not in written and "kuberay" not in written
    assert yaml.safe_load(written)["cluster"]["wait_s"] == 20.0
    # A run whose folder has it from before resumes with what is sent.
    check_changes(SftRun, changes(run.model_dump(mode="json"), yaml.safe_load(written)))


@pytest.mark.parametrize("preset", preset_names())
def test_the_sent_file_is_read_back_as_the_same_run(preset: str, tmp_path: Path) -> None:
    run = load_run(preset, [*paths_of(preset), "name=a b", "storage.path=/shared/runs", "seed=7"])
    sent = for_cluster(run)
    write_job(sent, tmp_path, with_source=False)
    assert [path.name for path in tmp_path.iterdir()] == [CONFIG_FILE]
    assert load_run(str(tmp_path / CONFIG_FILE)) == sent


def paths_of(preset: str) -> list[str]:
    """What the preset leaves to the user."""
    values = yaml.safe_load((PRESETS / f"{preset}.yaml").read_text())
    policy, reward = "policy.model=/models/policy", "reward.model=/models/reward"
    kinds = {
        "pretrain": ["data.text=/data/t"],
        "pretrain-encoder": ["data.text=/data/t"],
        "sft": [policy, "data.demonstrations=/data/d"],
        "reward": [reward, "data.pairs=/data/p"],
        "dpo": [policy, "data.pairs=/data/p"],
        "kto": [policy, "data.labelled=/data/l"],
        "online": [policy, reward, "data.prompts=/data/p"],
        "pipeline": [] if preset == "toy" else ["data.pairs=/data/p"],
    }
    teachers = ["teachers=[{model: /models/teacher}]"] if preset == "distill" else []
    return kinds[values["kind"]] + teachers


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job's working folder with the source."""
    folder = tmp_path_factory.mktemp("job")
    write_job(load_run("sft", SFT), folder, with_source=True)
    return folder


def test_the_source_is_whole_and_nothing_but_the_source(job: Path) -> None:
    modules = {path for path in job.rglob("*") if path.is_file()}
    presets = {f"plumbob/configs/presets/{name}.yaml" for name in preset_names()}
    expected = {*(f"plumbob/{path}" for path in source_files()), "plumbob/__init__.py", "plumbob/py.typed", CONFIG_FILE}
    assert {path.relative_to(job).as_posix() for path in modules} == expected | presets


@pytest.mark.parametrize("option", ["-P", "-I"])
def test_a_folder_with_the_source_runs_the_program_from_it_alone(option: str, job: Path, tmp_path: Path) -> None:
    """Not from the checkout and not from an installed package: neither is on the path."""
    code = (
        "import importlib.util, sys\n"
        "sys.meta_path = [finder for finder in sys.meta_path if 'editable' not in repr(finder).lower()]\n"
        "assert importlib.util.find_spec('plumbob') is None\n"
        f"sys.path.insert(0, {str(job)!r})\n"
        "from plumbob.console.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as ended: assert ended.code == 0\n"
        "assert main(['plan', 'toy', 'data.toy.num_texts=100', 'data.toy.num_pairs=40']) == 0\n"
        "print(sorted({module.__file__.removesuffix(name.removeprefix('plumbob').replace('.', '/') + '.py')\n"
        "    for name, module in sys.modules.items() if name.startswith('plumbob.') and module.__file__\n"
        "    and not module.__file__.endswith('__init__.py')}))"
    )
    command = [sys.executable, option, "-c", code]
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.startswith("usage: plumbob")
    assert done.stdout.splitlines()[-1] == str([str(job / "plumbob")])


def test_the_entry_point_of_the_folder_is_a_module_of_the_package(job: Path) -> None:
    """Ray starts it in the job's working folder, and Python puts that first on its path."""
    program = [sys.executable, *entrypoint(with_source=True, resumes=False, as_json=False).split()[1:3]]
    done = subprocess.run([*program, "--help"], cwd=job, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("usage: plumbob")


def test_the_command_that_the_head_starts() -> None:
    assert entrypoint(with_source=False, resumes=False, as_json=False) == "plumbob run run.yaml"
    assert entrypoint(with_source=True, resumes=True, as_json=True) == (
        "python -m plumbob.console.cli run run.yaml --resume --json"
    )
