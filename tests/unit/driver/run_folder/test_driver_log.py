"""What a driver tells, as it is kept."""

import re
import sys
from pathlib import Path

import pytest

from plumbob.core.errors import RunFailed
from plumbob.driver.run_folder.driver_log import DriverLog
from plumbob.driver.run_folder.folder import DRIVER_LOG
from plumbob.trainers.metrics.step_record import StepRecord
from tests.support.recording_listener import Watching

STAMPED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (.*)")


def test_all_that_a_driver_tells_and_prints_has_its_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watching = Watching()
    with pytest.raises(RunFailed), DriverLog(tmp_path, watching) as log:
        log.stage_began("sft")
        log.stepped(StepRecord("sft", 1, 9, {"loss": 2.25, "tokens_per_s": 1234567.0}, {"learn": 1.0}))
        log.notify("cluster", "rollout-1 died; it is replaced")
        print("a library warns", file=sys.stderr)
        raise RunFailed("the loss is nan\nin step 2")
    with DriverLog(tmp_path, watching) as log:  # That resumes it.
        log.stage_began("sft")
    told = [STAMPED.fullmatch(line) for line in (tmp_path / DRIVER_LOG).read_text().splitlines()]
    assert [line and line[1] for line in told] == [
        "sft: begins",
        "sft: step 1 of 9: loss 2.25, tokens_per_s 1.235e+06",
        "cluster: rollout-1 died; it is replaced",
        "a library warns",
        "the loss is nan",
        "in step 2",
        "sft: begins",
    ]
    assert watching.notes == [("cluster", "rollout-1 died; it is replaced")]
    assert capsys.readouterr().err == "a library warns\n"  # Where it was going it went, without a stamp.
