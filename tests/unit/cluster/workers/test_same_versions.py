"""Versions are compared where both sides have a package, and a difference names the worker, the host and both."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

from plumbob.cluster.launchers.job_files import write_job
from plumbob.cluster.workers.same_versions import COMPARED, LOCATION, SOURCE, check_packages, installed
from plumbob.configs.load_run import load_run
from plumbob.core.errors import UserError

DRIVER = {"python": "3.11", "plumbob": "0.1.0", "torch": "2.13.0", "transformers": "5.1.0", "vllm": "0.32.0"} | {
    "tokenizers": "0.22.1"
}


def test_the_same_versions_are_accepted() -> None:
    check_packages("rollout-0", "10.0.0.2", DRIVER, DRIVER)
    # The worker's host has no vLLM, the driver's no DeepSpeed.
    scorers = {name: version for name, version in DRIVER.items() if name != "vllm"} | {"deepspeed": "0.19.8"}
    check_packages("reward-0", "10.0.0.2", scorers, DRIVER)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            {"transformers": "5.0.0"},
            "worker rollout-1 on 10.0.0.2 has transformers 5.0.0, the driver has transformers 5.1.0: "
            "install the same on every host",
        ),
        (
            {"tokenizers": "0.21.0", "torch": "2.12.0"},
            "worker rollout-1 on 10.0.0.2 has torch 2.12.0, tokenizers 0.21.0, the driver has torch 2.13.0, "
            "tokenizers 0.22.1: install the same on every host",
        ),
        (
            {"python": "3.12", "plumbob": "0.0.9"},
            "worker rollout-1 on 10.0.0.2 has python 3.12, plumbob 0.0.9, the driver has python 3.11, plumbob 0.1.0: "
            "install the same on every host",
        ),
    ],
)
def test_another_version_is_refused(own: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as refused:
        check_packages("rollout-1", "10.0.0.2", DRIVER | own, DRIVER)
    assert str(refused.value) == message


def test_what_makes_or_reads_tensors_and_tokens_is_compared() -> None:
    assert {"numpy", "safetensors", "tokenizers", "torch", "transformers", "bitsandbytes"} <= set(COMPARED)
    assert {"numpy", "safetensors", "tokenizers"} <= set(installed())


def test_another_commit_of_the_same_version_is_refused(tmp_path: Path) -> None:
    write_job(load_run("sft", ["policy.model=/m", "data.demonstrations=/d"]), tmp_path, with_source=True)

    def found_there() -> dict[str, str]:
        """By a process that runs the copy."""
        code = (
            "import json\nfrom plumbob.cluster.workers.same_versions import installed\nprint(json.dumps(installed()))"
        )
        command = [sys.executable, "-P", "-c", code]
        env = {"PYTHONPATH": str(tmp_path)}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True, timeout=60)
        found: dict[str, str] = json.loads(done.stdout)
        return found

    began = found_there()
    check_packages("rollout-0", "10.0.0.2", found_there() | {LOCATION: "elsewhere"}, began)
    with (tmp_path / "plumbob/console/display.py").open("a") as file:  # Workers do not run it.
        file.write("\n")
    check_packages("rollout-0", "10.0.0.2", found_there() | {LOCATION: "elsewhere"}, began)
    with (tmp_path / "plumbob/trainers/algorithms/policy_losses.py").open("a") as file:
        file.write("\n")
    changed = found_there()
    with pytest.raises(UserError) as refused:
        check_packages("rollout-0", "10.0.0.2", changed | {LOCATION: "elsewhere"}, began)
    assert str(refused.value) == (
        f"worker rollout-0 on 10.0.0.2 has plumbob's source {changed[SOURCE]}, the driver has plumbob's source "
        f"{began[SOURCE]}: install the same on every host"
    )
    # The driver's own files, edited while the worker started.
    check_packages("rollout-0", "10.0.0.2", changed, began)


def test_what_is_installed_is_read_without_importing_it() -> None:
    found = installed()
    assert found["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert found["ray"] == importlib.metadata.version("ray")
    # A build for a CPU and one for a GPU are of one version.
    assert found["torch"] == importlib.metadata.version("torch").partition("+")[0]
    code = (
        "import sys\nfrom plumbob.cluster.workers.same_versions import installed\ninstalled()\n"
        "print([name for name in ('torch', 'transformers', 'ray', 'vllm', 'deepspeed', 'peft') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
