"""The script for Slurm: options that sbatch knows, hosts that hold the run, and the script itself run by bash.

Slurm's `srun` and Ray's `ray start` are stood in for by commands that keep what they were given: what is tested is the
order of the steps, who sees the token, whose exit status it is, and that nothing is left. The stand-in for `plumbob`
ends when Ray has been started on all hosts.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from cluster.job import for_cluster
from cluster.needs import Need, needs_of
from cluster.placement import Amount
from cluster.slurm import host_size, render
from configs.errors import UserError
from configs.load import load_run
from configs.schema import AnyRun
from console.cli import main

RUN = ["policy.model=/models/p", "reward.model=/models/r", "data.prompts=/data/p.jsonl"]
JOB_ID = "987654"

# Options of sbatch's manual that the script may use, with what follows them.
ALLOWED = {
    "job-name": r"=[A-Za-z0-9._-]+",
    "nodes": r"=[1-9][0-9]*",
    "ntasks-per-node": r"=1",
    "cpus-per-task": r"=[1-9][0-9]*",
    "gpus-per-node": r"=[1-9][0-9]*",
    "mem": r"=0",
    "no-kill": r"",
}


def ppo(storage: Path | str, *overrides: str) -> AnyRun:
    return for_cluster(load_run("ppo", [*RUN, f"storage.path={storage}", "name=align", *overrides]))


def script(run: AnyRun, num_hosts: int = 1) -> str:
    return render(run, needs_of(run), num_hosts)


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
    run = ppo("/shared/$(touch x)/it's", f"learner.num_gpus={gpus}").model_copy(update={"name": name})
    text = script(run)
    subprocess.run(["bash", "-n"], input=text, text=True, check=True, timeout=30, cwd=tmp_path)
    found = options(text)
    assert all(re.fullmatch(ALLOWED[option], value) for option, value in found.items()), found
    assert ("gpus-per-node" in found) == bool(gpus)


def test_the_options_ask_for_what_the_run_needs() -> None:
    # Two learners of a GPU each, a sampler of two, a scorer of none: 2 hosts of 2 GPUs. CPUs: 3 + 2 x 0.5 + 0.5, where
    # the sampler's host has 3 and the learners' 1; the scorer takes the half that either would have left with 4.
    run = ppo("/r", "learner.num_workers=2", "learner.num_gpus=1", "rollout.num_gpus=2", "rollout.num_cpus=3")
    assert options(script(run, 2)) == {
        "job-name": "=align",
        "nodes": "=2",
        "ntasks-per-node": "=1",
        "cpus-per-task": "=3",
        "mem": "=0",
        "no-kill": "",
        "gpus-per-node": "=2",
    }


def need(count: int, num_cpus: float, num_gpus: float) -> Need:
    return Need("learner", "learner.num_workers", count, num_cpus, num_gpus, memory_gib=1.0, spread=False)


def size(needs: list[Need], num_hosts: int) -> tuple[float, float]:
    found: Amount = host_size(needs, num_hosts)
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
        script(ppo("/r"), num_hosts)  # A learner, a sampler, a scorer.


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["submit", "ppo", *RUN, "name=align", "--render", "slurm"]
    assert main([*command, "storage.path=/shared/runs", "--hosts", "2"]) == 0
    printed = capsys.readouterr().out
    assert options(printed)["nodes"] == "=2" and "wait_s: 300" in printed
    for wrong, message in (
        (["storage.path=runs"], "storage.path=runs: "),
        (["storage.path=/r", "--hosts", "0"], "--hosts 0: expected 1 to 3"),
        (["storage.path=/r", "--image", "i"], "--image is for --render kuberay only"),
    ):
        assert main([*command, *wrong]) == 2
        assert capsys.readouterr().err.startswith(f"plumbob: {message}")


# ------------------------------------------------------------------------------------------------------- run by bash

STANDS_IN = f"""#!{sys.executable}
import json, os, socket, sys, time
program, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
kept = {{"program": program, "arguments": arguments, "token": os.environ.get("RAY_AUTH_TOKEN"), "pid": os.getpid(),
        "address": os.environ.get("RAY_ADDRESS")}}
if program == "plumbob" and arguments[0] == "run":
    kept["config"] = open(arguments[1]).read()
with open(os.environ["KEPT"], "a") as log:
    log.write(json.dumps(kept) + "\\n")
if program == "hostname":
    print("127.0.0.1 10.1.2.3")
elif program == "srun":
    start = next(place for place, word in enumerate(arguments) if not word.startswith("--"))
    os.execvp(arguments[start], arguments[start:])
elif program == "plumbob":
    hosts, deadline = int(os.environ["SLURM_JOB_NUM_NODES"]), time.monotonic() + 60
    while open(os.environ["KEPT"]).read().count('"program": "ray"') < min(hosts, 2) and time.monotonic() < deadline:
        time.sleep(0.01)
    sys.exit(int(os.environ["EXIT"]))
elif "--head" in arguments:
    if os.environ.get("HEAD_FAILS"):
        sys.exit(1)
    port = next(word.partition("=")[2] for word in arguments if word.startswith("--port="))
    with socket.create_server(("127.0.0.1", int(port))):
        time.sleep(300)
else:
    time.sleep(300)
"""


@dataclass(frozen=True)
class Call:
    program: str
    arguments: list[str]
    token: str | None
    pid: int
    address: str | None
    config: str | None = None


@dataclass(frozen=True)
class Slurm:
    """Runs a script as a batch script on the first of some hosts."""

    folder: Path

    def __call__(
        self, text: str, *arguments: str, num_hosts: int = 1, **environment: str
    ) -> tuple[subprocess.CompletedProcess[str], list[Call]]:
        kept = self.folder / "kept.jsonl"
        kept.unlink(missing_ok=True)
        slurm = {
            "SLURM_JOB_ID": JOB_ID,
            "SLURM_JOB_NUM_NODES": str(num_hosts),
            "SLURM_CPUS_PER_TASK": "3",
            "SLURMD_NODENAME": "host-1",
        }
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        own = {"PATH": path, "KEPT": str(kept), "EXIT": "0", "TMPDIR": str(self.folder / "tmp")}
        (self.folder / "script").write_text(text)
        done = subprocess.run(
            ["bash", str(self.folder / "script"), *arguments],
            text=True,
            capture_output=True,
            check=False,
            timeout=120,
            env=own | slurm | environment,
        )
        return done, [Call(**json.loads(line)) for line in kept.read_text().splitlines()] if kept.exists() else []


@pytest.fixture
def slurm(tmp_path: Path) -> Slurm:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "bin").mkdir()
    for program in ("srun", "ray", "plumbob", "hostname"):
        (tmp_path / "bin" / program).write_text(STANDS_IN)
        (tmp_path / "bin" / program).chmod(0o755)
    return Slurm(tmp_path)


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_ray_on_all_hosts_then_the_run_then_nothing_is_left(slurm: Slurm, tmp_path: Path) -> None:
    run = ppo(tmp_path / "it's $HOME", "rollout.num_workers=2")
    done, calls = slurm(script(run, 3), num_hosts=3)
    assert done.returncode == 0, done.stderr
    head, others = (call for call in calls if call.program == "ray")
    port = 20000 + int(JOB_ID) % 10000
    common = ["start", "--block", "--num-cpus=3", f"--temp-dir=/tmp/ray-{JOB_ID}"]
    joined = ["--head", "--node-ip-address=127.0.0.1", f"--port={port}", "--include-dashboard=false"]
    assert head.arguments == common + joined
    assert others.arguments == [*common, f"--address=127.0.0.1:{port}"]
    first, second, last = (call.arguments for call in calls if call.program == "srun")
    assert {"--nodes=1", "--nodelist=host-1", "--cpus-per-task=3"} < set(first)
    assert {"--nodes=2", "--exclude=host-1", "--cpus-per-task=3"} < set(second)
    assert last[-4:] == ["rm", "-rf", "--", f"/tmp/ray-{JOB_ID}"]
    (driver,) = (call for call in calls if call.program == "plumbob")
    assert driver.address == f"127.0.0.1:{port}"
    assert driver.config is not None and yaml.safe_load(driver.config) == run.model_dump(mode="json")
    # One token for all, made by the script, that no list of processes shows.
    (token,) = {call.token for call in (head, others, driver)}
    assert token is not None and re.fullmatch(r"[0-9a-f]{64}", token)
    assert not any(token in word for call in calls for word in call.arguments)
    assert token not in done.stdout + done.stderr
    # Nothing is left.
    assert not any(is_alive(call.pid) for call in (head, others))
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("status", ["1", "2"])
def test_the_exit_status_is_that_of_the_run(status: str, slurm: Slurm, tmp_path: Path) -> None:
    done, calls = slurm(script(ppo(tmp_path)), EXIT=status)
    assert done.returncode == int(status)
    (head,) = (call for call in calls if call.program == "ray")
    assert not is_alive(head.pid)


def test_a_run_that_was_begun_is_gone_on_with_when_asked_and_when_slurm_starts_it_again(
    slurm: Slurm, tmp_path: Path
) -> None:
    text, folder = script(ppo(tmp_path)), tmp_path / "align"

    def commands(*arguments: str, **environment: str) -> list[str]:
        _, calls = slurm(text, *arguments, **environment)
        (driver,) = (call.arguments for call in calls if call.program == "plumbob")
        return driver

    assert commands("resume") == ["resume", str(folder)]
    assert commands(SLURM_RESTART_COUNT="1")[0] == "run"  # It had not come so far.
    folder.mkdir()
    (folder / "resolved.json").touch()
    assert commands(SLURM_RESTART_COUNT="1") == ["resume", str(folder)]
    assert commands()[0] == "run"  # Which refuses a name that is taken.


def test_what_keeps_it_from_starting_is_said(slurm: Slurm, tmp_path: Path) -> None:
    done, calls = slurm(script(ppo(tmp_path)), HEAD_FAILS="1")
    assert (done.returncode, done.stderr) == (1, "plumbob: the head of Ray did not start on host-1\n")
    assert all(call.program != "plumbob" for call in calls)
    (tmp_path / "bin" / "plumbob").unlink()
    done, calls = slurm(script(ppo(tmp_path)), PATH=f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert done.returncode == 2 and "ray and plumbob are not on the PATH" in done.stderr
    assert calls == []
