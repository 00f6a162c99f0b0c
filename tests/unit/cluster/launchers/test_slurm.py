"""The script for Slurm: options that sbatch knows, and hosts that hold the run."""

import re
import subprocess
from pathlib import Path

import pytest

from plumbob.cluster.launchers.slurm import host_size
from plumbob.cluster.launchers.slurm import script as script_of
from plumbob.cluster.resources import ResourceAmount, ResourceNeed, resource_needs
from plumbob.configs.runs import AnyRun
from plumbob.console.cli import main
from plumbob.core.errors import UserError
from tests.support.submitted_run import PPO, need, online

# Options of sbatch's manual that the script may use, with what follows them.
ALLOWED = {
    "job-name": r"=[A-Za-z0-9._-]+",
    "nodes": r"=[1-9][0-9]*",
    "ntasks-per-node": r"=1",
    "cpus-per-task": r"=[1-9][0-9]*",
    "gpus-per-node": r"=[1-9][0-9]*",
    "mem": r"=0",
    "no-kill": r"",
    "requeue": r"",
    "open-mode": r"=append",
    "signal": r"=B:TERM@[1-9][0-9]*",
}


def script(run: AnyRun, num_hosts: int = 1) -> str:
    return script_of(run, resource_needs(run), num_hosts)


def options(text: str) -> dict[str, str]:
    """Option -> what follows it. They must stand before the first command, or sbatch does not read them."""
    head = text[: text.index("\n\n")].splitlines()
    assert head[0] == "#!/bin/bash" and all(line.startswith("#SBATCH --") for line in head[1:])
    assert text.count("#SBATCH") == len(head) - 1
    found = [re.fullmatch(r"#SBATCH --([a-z-]+)(.*)", line) for line in head[1:]]
    return {match[1]: match[2] for match in found if match is not None}


@pytest.mark.parametrize("name", ["align", 'it\'s $HOME `x`; "y"'])
@pytest.mark.parametrize("gpus", [0, 1])
def test_bash_reads_it_and_sbatch_knows_its_options(name: str, gpus: int, tmp_path: Path) -> None:
    run = online(f"learner.num_gpus={gpus}", storage="/shared/$(touch x)/it's").model_copy(update={"name": name})
    text = script(run)
    subprocess.run(["bash", "-n"], input=text, text=True, check=True, timeout=30, cwd=tmp_path)
    found = options(text)
    assert all(re.fullmatch(ALLOWED[option], value) for option, value in found.items()), found
    assert ("gpus-per-node" in found) == bool(gpus)


def test_the_options_ask_for_what_the_run_needs() -> None:
    # Two learners of a GPU each, a sampler of two, a scorer of none: 2 hosts of 2 GPUs. CPUs: 3 + 2 x 0.5 + 0.5, where
    # the sampler's host has 3 and the learners' 1; the scorer takes the half that either would have left with 4.
    run = online("learner.num_workers=2", "learner.num_gpus=1", "rollout.num_gpus=2", "rollout.num_cpus=3")
    assert options(script(run, 2)) == {
        "job-name": "=align",
        "nodes": "=2",
        "ntasks-per-node": "=1",
        "cpus-per-task": "=3",
        "mem": "=0",
        "no-kill": "",
        "requeue": "",
        "open-mode": "=append",
        "signal": "=B:TERM@120",
        "gpus-per-node": "=2",
    }


def size(needs: list[ResourceNeed], num_hosts: int) -> tuple[float, float]:
    found: ResourceAmount = host_size(needs, num_hosts)
    return found.cpus, found.gpus


def test_the_smallest_equal_hosts_that_hold_all_workers() -> None:
    assert size([need(4, 0.5, 0)], 1) == (2, 0)
    # An equal share, 1.5 CPUs, is no whole number; with 2 each all fit.
    assert size([need(3, 1, 0)], 2) == (2, 0)
    # 3 workers of 2 CPUs on 2 hosts: an equal share would be 3, but one host must hold two of them.
    assert size([need(3, 2, 0)], 2) == (4, 0)
    # Three shares of one GPU make a whole one, not a little more than one.
    assert size([need(1, 1, 0.4), need(1, 1, 0.5), need(1, 1, 0.1)], 1) == (3, 1)
    # GPUs go before CPUs: two hosts of one GPU, which leaves the worker without one to either.
    assert size([need(2, 1, 1), need(1, 4, 0)], 2) == (5, 1)


@pytest.mark.parametrize("num_hosts", [0, 4])
def test_more_hosts_than_workers(num_hosts: int) -> None:
    with pytest.raises(UserError, match=rf"^--hosts {num_hosts}: expected 1 to 3, the number of the run's workers$"):
        script(online(), num_hosts)  # A learner, a sampler, a scorer.


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["submit", "ppo", *PPO, "--render", "slurm"]
    assert main([*command, "storage.path=/shared/runs", "--hosts", "2"]) == 0
    printed, said = capsys.readouterr()
    assert options(printed)["nodes"] == "=2" and "wait_s: 300" in printed
    assert said == "plumbob: storage.path=/shared/runs is not on this machine, so the run's input was not checked\n"
    for wrong, message in (
        (["storage.path=runs"], "storage.path=runs: "),
        (["storage.path=/r", "--hosts", "0"], "--hosts 0: expected 1 to 3"),
        (["storage.path=/r", "--image", "i"], "--image is for --render kuberay only"),
    ):
        assert main([*command, *wrong]) == 2
        assert capsys.readouterr().err.startswith(f"plumbob: {message}")


def test_what_would_end_the_job_is_found_where_the_storage_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the job waits for its hosts: a file that is not there, and a name that is taken."""
    text = tmp_path / "text.jsonl"
    command = ["submit", "pretrain", f"data.text={text}", f"storage.path={tmp_path}", "name=run", "--render", "slurm"]
    assert main(command) == 2
    printed, said = capsys.readouterr()
    assert printed == "" and said.startswith(f"plumbob: {text}: does not exist. ")
    text.write_text("".join(f'{{"text": "This is line {number} of a text."}}\n' for number in range(400)))
    assert main(command) == 0
    assert all(line.startswith("plumbob: memory: ") for line in capsys.readouterr().err.splitlines())
    (tmp_path / "run").mkdir()
    (tmp_path / "run/resolved.json").touch()
    assert main(command) == 0
    printed, said = capsys.readouterr()
    assert options(printed) and f"plumbob: {tmp_path}/run: a run of this name has begun: " in said
