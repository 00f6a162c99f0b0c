"""The script for Slurm, run by bash.

Slurm's `srun` and Ray's `ray start` are stood in for by commands that keep what they were given: what is tested is the
order of the steps, who sees the token, whose exit status it is, and that nothing is left. The stand-in for `plumbob`
ends when Ray has been started on all hosts.
"""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from plumbob.cluster.launchers.slurm import script
from plumbob.cluster.resources import resource_needs
from plumbob.configs.runs import AnyRun
from tests.support.submitted_run import online

JOB_ID = "987654"

STANDS_IN = f"""#!{sys.executable}
import json, os, signal, socket, sys, time
program, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
kept = {{"program": program, "arguments": arguments, "token": os.environ.get("RAY_AUTH_TOKEN"), "pid": os.getpid(),
        "address": os.environ.get("RAY_ADDRESS")}}
if program == "plumbob" and arguments[0] == "run":
    kept["config"] = open(arguments[1]).read()
with open(os.environ["KEPT"], "a") as log:
    log.write(json.dumps(kept) + "\\n")
if program == "hostname":
    print("127.0.0.1 10.1.2.3")
elif program == "scontrol":
    print("\\n".join(f"host-{{number + 1}}" for number in range(int(os.environ["SLURM_JOB_NUM_NODES"]))))
elif program == "scancel":
    for call in map(json.loads, open(os.environ["KEPT"])):
        if call["program"] == "srun" and os.path.exists(f"/proc/{{call['pid']}}"):
            os.kill(call["pid"], signal.SIGUSR1)
elif program == "srun":
    print(os.environ.get("PROLOG_PRINTS", ""), flush=True)
    start = next(place for place, word in enumerate(arguments) if not word.startswith("--"))
    os.execvp(arguments[start], arguments[start:])
elif program == "plumbob":
    hosts, deadline = int(os.environ["SLURM_JOB_NUM_NODES"]), time.monotonic() + 60
    while open(os.environ["KEPT"]).read().count('"program": "ray"') < hosts and time.monotonic() < deadline:
        time.sleep(0.01)
    if os.environ.get("BEGINS"):
        os.makedirs(os.environ["BEGINS"], exist_ok=True)
        open(os.environ["BEGINS"] + "/resolved.json", "w").close()
    time.sleep(float(os.environ.get("WORKS_S", 0)))
    sys.exit(int(os.environ["EXIT"]))
elif os.environ.get("FAILS_ON") and os.environ["FAILS_ON"] in os.environ["TMPDIR"]:
    print("Ray runtime started." if os.environ.get("BEGINS") else "no ports left", flush=True)
    time.sleep(1.5)
    sys.exit(3)
elif "--head" in arguments:
    if os.environ.get("HEAD_FAILS"):
        sys.exit(1)
    port = next(word.partition("=")[2] for word in arguments if word.startswith("--port="))
    with socket.create_server(("127.0.0.1", int(port))):
        print("Ray runtime started.", flush=True)
        time.sleep(300)
else:
    time.sleep(float(os.environ.get("JOINS_AFTER_S", 0)))
    print("Ray runtime started.", flush=True)
    time.sleep(300)
"""


@dataclass(frozen=True)
class StubCall:
    program: str
    arguments: list[str]
    token: str | None
    pid: int
    address: str | None
    config: str | None = None


@dataclass(frozen=True)
class Slurm:
    """Runs a run's script as a batch script on the first of some hosts."""

    folder: Path

    def __call__(
        self, run: AnyRun, *arguments: str, num_hosts: int = 1, **environment: str
    ) -> tuple[subprocess.CompletedProcess[str], list[StubCall]]:
        kept = self.folder / "kept.jsonl"
        kept.unlink(missing_ok=True)
        slurm = {
            "SLURM_JOB_ID": JOB_ID,
            "SLURM_JOB_NUM_NODES": str(num_hosts),
            "SLURM_CPUS_PER_TASK": "3",
            "SLURMD_NODENAME": "host-1",
            "SLURM_JOB_NODELIST": "host-[1-3]",
        }
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        own = {"PATH": path, "KEPT": str(kept), "EXIT": "0", "TMPDIR": str(self.folder / "tmp")}
        (self.folder / "script").write_text(script(run, resource_needs(run), num_hosts))
        done = subprocess.run(
            ["bash", str(self.folder / "script"), *arguments],
            text=True,
            capture_output=True,
            check=False,
            timeout=120,
            env=own | slurm | environment,
        )
        return done, [StubCall(**json.loads(line)) for line in kept.read_text().splitlines()] if kept.exists() else []


@pytest.fixture
def slurm(tmp_path: Path) -> Slurm:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "bin").mkdir()
    for program in ("srun", "scontrol", "scancel", "ray", "plumbob", "hostname"):
        (tmp_path / "bin" / program).write_text(STANDS_IN)
        (tmp_path / "bin" / program).chmod(0o755)
    return Slurm(tmp_path)


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_ray_on_all_hosts_then_the_run_then_nothing_is_left(slurm: Slurm, tmp_path: Path) -> None:
    run = online("rollout.num_workers=2", storage=tmp_path / "it's $HOME")
    done, calls = slurm(run, num_hosts=3)
    assert done.returncode == 0, done.stderr
    # One step a host, and a folder of its own for each: they may be one machine.
    steps = sorted(call.arguments for call in calls if call.program == "srun")
    for number, step in enumerate(steps, 1):
        assert step[:4] == ["--nodes=1", "--ntasks=1", f"--nodelist=host-{number}", "--cpus-per-task=3"]
    rays = sorted((call for call in calls if call.program == "ray"), key=lambda call: call.arguments[2])
    port = 20000 + int(JOB_ID) % 10000
    common = [["start", "--block", f"--temp-dir=/tmp/ray-{JOB_ID}-{number}", "--num-cpus=3"] for number in range(3)]
    joined = ["--head", "--node-ip-address=127.0.0.1", f"--port={port}", "--include-dashboard=false"]
    others = [f"--address=127.0.0.1:{port}"]
    assert [ray.arguments for ray in rays] == [common[0] + joined, common[1] + others, common[2] + others]
    (driver,) = (call for call in calls if call.program == "plumbob")
    assert driver.address == f"127.0.0.1:{port}"
    assert driver.config is not None and yaml.safe_load(driver.config) == run.model_dump(
        mode="json", exclude={"cluster": {"kuberay"}}
    )
    # One token for all, made by the script, that no list of processes shows.
    (token,) = {call.token for call in (*rays, driver)}
    assert token is not None and re.fullmatch(r"[0-9a-f]{64}", token)
    assert not any(token in word for call in calls for word in call.arguments)
    assert token not in done.stdout + done.stderr
    # Nothing is left.
    assert not any(is_alive(call.pid) for call in rays)
    assert list((tmp_path / "tmp").iterdir()) == [] and list(Path("/tmp").glob(f"ray-{JOB_ID}-*")) == []
    assert done.stderr == ""


def test_a_ray_that_fails_on_another_host_ends_a_job_that_waits_for_it_and_no_run_that_has_begun(
    slurm: Slurm, tmp_path: Path
) -> None:
    run = online("rollout.num_workers=2", storage=tmp_path)
    failing = {"FAILS_ON": f"ray-{JOB_ID}-1", "WORKS_S": "4"}
    done, _ = slurm(run, num_hosts=3, **failing)
    assert done.returncode == 1
    lost = "plumbob: Ray has ended on host-2\n"
    assert done.stderr == f"no ports left\n{lost}plumbob: it has to be there before the run begins\n"
    done, _ = slurm(run, num_hosts=3, BEGINS=str(tmp_path / "align"), **failing)
    assert (done.returncode, done.stderr) == (0, f"Ray runtime started.\n{lost}")
    # One that has begun before, and waits for its hosts again.
    done, _ = slurm(run, "resume", num_hosts=3, **failing)
    assert done.returncode == 1


def test_the_run_begins_when_ray_has_started_on_all_hosts(slurm: Slurm, tmp_path: Path) -> None:
    """Earlier its workers would go to those that are there."""
    began = time.monotonic()
    # A site's own prolog prints a line on each host.
    environment = {"JOINS_AFTER_S": "2", "PROLOG_PRINTS": "loading modules"}
    done, calls = slurm(online("rollout.num_workers=2", storage=tmp_path), num_hosts=3, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    # The stand-in for `plumbob` is called no sooner than the last of Ray has started.
    assert [call.program for call in calls].index("plumbob") > 3 and time.monotonic() - began > 2.0


def test_a_time_limit_is_passed_on_to_the_run_which_says_how_it_ended(slurm: Slurm, tmp_path: Path) -> None:
    """By `--signal=B:TERM@120` this script alone is signalled."""
    (tmp_path / "bin" / "plumbob").write_text(
        "#!/bin/bash\ntrap 'sleep 1; exit 75' TERM\nsleep 0.5\nkill -TERM $PPID\nwhile true; do sleep 0.1; done\n"
    )
    done, calls = slurm(online(storage=tmp_path))
    assert (done.returncode, done.stderr) == (75, "")
    (head,) = (call for call in calls if call.program == "ray")
    assert not is_alive(head.pid)


@pytest.mark.parametrize("status", ["1", "2", "75"])
def test_the_exit_status_is_that_of_the_run(status: str, slurm: Slurm, tmp_path: Path) -> None:
    done, calls = slurm(online(storage=tmp_path), EXIT=status)
    assert done.returncode == int(status)
    (head,) = (call for call in calls if call.program == "ray")
    assert not is_alive(head.pid)


def test_a_run_that_was_begun_is_gone_on_with_when_asked_and_when_slurm_starts_it_again(
    slurm: Slurm, tmp_path: Path
) -> None:
    folder = tmp_path / "align"

    def commands(*arguments: str, **environment: str) -> list[str]:
        _, calls = slurm(online(storage=tmp_path), *arguments, **environment)
        (driver,) = (call.arguments for call in calls if call.program == "plumbob")
        return driver

    assert commands("resume") == ["resume", str(folder)]
    assert commands(SLURM_RESTART_COUNT="1")[0] == "run"  # It had not come so far.
    folder.mkdir()
    (folder / "resolved.json").touch()
    assert commands(SLURM_RESTART_COUNT="1") == ["resume", str(folder)]
    assert commands()[0] == "run"  # Which refuses a name that is taken.


def test_what_keeps_it_from_starting_is_reported(slurm: Slurm, tmp_path: Path) -> None:
    done, calls = slurm(online(storage=tmp_path), HEAD_FAILS="1")
    assert (done.returncode, done.stderr) == (1, "plumbob: the head of Ray did not start on host-1\n")
    assert all(call.program != "plumbob" for call in calls)
    (tmp_path / "bin" / "plumbob").unlink()
    done, calls = slurm(online(storage=tmp_path), PATH=f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert done.returncode == 2 and "ray and plumbob are not on the PATH" in done.stderr
    assert calls == []
