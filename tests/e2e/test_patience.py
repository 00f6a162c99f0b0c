"""A run that is resumed while the workers of its dead driver still hold what it needs."""

import subprocess
import sys
from pathlib import Path

import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.resolved_copy import write_resolved
from plumbob.core.errors import RunStopped
from plumbob.driver.api import resume
from tests.support.recording_listener import Watching
from tests.support.small_run import Stages, settings
from tests.support.tiny_policy import write_policy

pytestmark = pytest.mark.slow

BOUND_S = 120
ALL_CPUS = 4


class Undertaker(Watching):
    """Ends the driver that is in the way once the run waits for it, and the run once it has begun."""

    def __init__(self, in_the_way: "subprocess.Popen[str]") -> None:
        super().__init__()
        self._in_the_way = in_the_way

    def notify(self, stage: str, message: str) -> None:
        super().notify(stage, message)
        if "waiting up to" in message:
            self._in_the_way.kill()

    def stage_began(self, stage: str) -> None:
        raise RunStopped(f"{stage} began")


def test_a_resume_waits_for_the_workers_of_a_driver_that_died(tmp_path: Path, stage: Stages) -> None:
    stage.close()
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "who?", "completion": "me"}\n')
    given = {
        **{"policy.model": write_policy(tmp_path / "policy"), "data.demonstrations": rows, "data.heldout_fraction": 0},
        **{"sft.batch_size": 1, "learner.num_cpus": ALL_CPUS, "learner.memory_gib": 0},
        **{"cluster.address": stage.address, "storage.path": tmp_path / "runs", "name": "tight"},
    }
    folder = tmp_path / "runs" / "tight"
    write_resolved(load_run("sft", settings(given)), folder)
    hog = subprocess.Popen(
        [sys.executable, "-m", "tests.support.cpu_holder", stage.address, str(ALL_CPUS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert hog.stdout is not None
        assert hog.stdout.readline() == "held\n"
        watching = Undertaker(hog)
        with pytest.raises(RunStopped, match="sft began"):
            resume(folder, watching)
    finally:
        hog.kill()
        hog.communicate(timeout=BOUND_S)
    ((_, waited),) = watching.notes
    assert waited.startswith("4 CPUs are missing") and waited.endswith("waiting up to 60 s for them to join")
