"""The script of `plumbob submit --render slurm` on a real Slurm of three nodes: `make test-slurm`."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from plumbob.cluster.calls import wait_until
from plumbob.configs.settings.data import ToyWorldSettings
from plumbob.console.cli import main
from plumbob.data.toy_world.toy_files import build_world, write_world
from tests.slurm.slurm_cluster import SlurmCluster, missing, slurm_cluster
from tests.support.small_run import LLAMA, Left, model_settings, settings

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(missing()) or os.geteuid() != 0, reason=f"needs root and Slurm: {missing()} are missing"),
]

JOB_S = 300.0
LEARNERS = {"learner.num_cpus": 0.25, "learner.num_threads": 1, "learner.autocast": "false"}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
        with slurm_cluster(tmp_path_factory.mktemp("slurm"), num_nodes=3, cpus=4) as cluster:
            yield cluster


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    sizes = ToyWorldSettings(num_cars=2, num_texts=200, num_demonstrations=16, num_pairs=16, num_heldout_pairs=4)
    write_world(build_world(sizes, seed=0), folder)
    return folder


@pytest.fixture
def render(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Path]:
    """The script of a small pre-training of that many epochs, below tmp_path; a checkpoint at its end alone."""

    def rendered(num_epochs: int, num_hosts: int) -> Path:
        data = {"data.text": world / "text.jsonl", "pretrain.block_tokens": 64, "pretrain.batch_size": 12}
        length = {"pretrain.num_epochs": num_epochs, "pretrain.save_every": 10_000}
        workers = {**LEARNERS, "learner.num_workers": num_hosts, "learner.placement": "spread"}
        where = {"storage.path": tmp_path, "name": "run"}
        overrides = settings(model_settings("policy.model", LLAMA), workers, data, length, where)
        assert main(["submit", "pretrain", *overrides, "--render", "slurm", "--hosts", str(num_hosts)]) == 0
        (tmp_path / "run.sh").write_text(capsys.readouterr().out)
        return tmp_path / "run.sh"

    return rendered


def printed(slurm: SlurmCluster, job: str) -> str:
    return (slurm.folder / f"slurm-{job}.out").read_text()


def wait_for(slurm: SlurmCluster, job: str, is_so: Callable[[], bool]) -> None:
    assert wait_until(is_so, JOB_S, 0.3), f"{slurm.state(job)}\n{printed(slurm, job)}"


def ended(slurm: SlurmCluster, job: str) -> str:
    """The state that it ended in, when nothing of it is left on this machine."""
    wait_for(slurm, job, lambda: slurm.state(job) not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"))
    assert wait_until(lambda: not of_job(job), 20.0), of_job(job)
    assert list(Path("/tmp").glob(f"ray-{job}-*")) == []
    return slurm.state(job)


def of_job(job: str) -> list[str]:
    """Processes of a job's Ray."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or ())
        if f"/tmp/ray-{job}-" in command:
            found.append(command[:120])
    return found


def num_steps(folder: Path) -> int:
    lines = folder / "run/metrics.jsonl"
    return len(lines.read_text().splitlines()) if lines.exists() else 0


def test_a_run_on_three_hosts_ends_well_and_without_a_word_of_srun(
    slurm: SlurmCluster, render: Callable[..., Path], tmp_path: Path
) -> None:
    job = slurm.submit(render(num_epochs=1, num_hosts=3))
    assert ended(slurm, job) == "COMPLETED", printed(slurm, job)
    said = printed(slurm, job)
    assert "srun:" not in said and "error" not in said.lower() and "slurmstepd" not in said, said
    assert (tmp_path / "run/summary.json").exists()


def test_a_time_limit_a_cancelled_job_and_a_requeued_one_lose_nothing(
    slurm: SlurmCluster, render: Callable[..., Path], tmp_path: Path
) -> None:
    script = render(num_epochs=200, num_hosts=1)
    # Slurm counts in minutes: the run is told 1 min to 2 min after it began.
    job = slurm.submit(script, options=["--time=3", "--signal=B:TERM@60"])
    assert ended(slurm, job) == "FAILED"
    assert slurm.field(job, "ExitCode") == "75:0", printed(slurm, job)
    saved = Left(tmp_path / "run").last_checkpoint
    assert f"the last good checkpoint is {saved}; resume with: plumbob resume {tmp_path}/run\n" in printed(slurm, job)
    first = num_steps(tmp_path)
    assert first == int(saved.name.removeprefix("step-")) > 0

    # Cancelled: Slurm signals all processes of the job at once. What was saved is there.
    job = slurm.submit(script, "resume")
    wait_for(slurm, job, lambda: num_steps(tmp_path) > first)
    slurm.call("scancel", job)
    assert ended(slurm, job) == "CANCELLED"
    assert Left(tmp_path / "run").last_checkpoint.exists()

    # Asked to stop, by hand, then requeued while it runs again, as after the loss of its first host.
    job = slurm.submit(script, "resume")
    before = num_steps(tmp_path)
    wait_for(slurm, job, lambda: num_steps(tmp_path) > before)
    slurm.call("scontrol", "requeue", job)
    wait_for(slurm, job, lambda: slurm.field(job, "Restarts") == "1")
    slurm.call("scontrol", "update", f"JobId={job}", "StartTime=now")
    wait_for(slurm, job, lambda: slurm.state(job) == "RUNNING")
    now = num_steps(tmp_path)
    wait_for(slurm, job, lambda: num_steps(tmp_path) > now)
    assert printed(slurm, job).count("pretrain: begins") == 2  # The output of both starts.
    slurm.call("scancel", "--batch", "--signal=TERM", job)
    assert ended(slurm, job) == "FAILED" and slurm.field(job, "ExitCode") == "75:0"
    assert [line["step"] for line in Left(tmp_path / "run").metrics] == list(range(1, num_steps(tmp_path) + 1))


def test_a_host_that_is_lost_ends_ray_on_no_other(
    slurm: SlurmCluster, render: Callable[..., Path], tmp_path: Path
) -> None:
    """The run starts its learners again on the two that are left, and ends well."""
    job = slurm.submit(render(num_epochs=4, num_hosts=3))
    wait_for(slurm, job, lambda: num_steps(tmp_path) > 0)
    slurm.lose("node3")
    try:
        wait_for(slurm, job, lambda: slurm.state(job) not in ("RUNNING", "COMPLETING"))
        said = printed(slurm, job)
        assert slurm.state(job) == "COMPLETED", said
        assert "Ray has ended on node1" not in said and "Ray has ended on node2" not in said, said
        assert json.loads((tmp_path / "run/status.json").read_text())["workers_lost"] > 0
    finally:
        for left in Path("/tmp").glob(f"ray-{job}-*"):
            shutil.rmtree(left)


def test_a_ray_that_fails_on_another_host_is_noticed_at_once(
    slurm: SlurmCluster, render: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which("ray")
    (tmp_path / "bin").mkdir()
    stub = tmp_path / "bin/ray"
    stub.write_text(
        f'#!/bin/bash\n[[ $SLURMD_NODENAME == node2 ]] && echo "no ports left" && exit 3\nexec {real} "$@"\n'
    )
    stub.chmod(0o755)
    script = render(num_epochs=1, num_hosts=2)
    script.write_text(script.read_text().replace("\nset -euo", f"\nPATH={tmp_path}/bin:$PATH\nset -euo", 1))
    began = time.monotonic()
    job = slurm.submit(script, options=["--nodelist=node[1-2]"])
    assert ended(slurm, job) == "FAILED"
    said = printed(slurm, job)
    assert (
        "no ports left" in said
        and "plumbob: Ray has ended on node2\nplumbob: it has to be there before the run begins\n" in said
    )
    assert time.monotonic() - began < 120.0  # The run waits for its hosts for 300 s.
    assert not (tmp_path / "run/resolved.json").exists()
