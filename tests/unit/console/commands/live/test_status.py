"""What `plumbob status` says to a person."""

import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from plumbob.cluster.run_status import WorkerStatus
from plumbob.configs.resolved_copy import RESOLVED_FILE
from plumbob.console.cli import main
from plumbob.console.commands.live.status import STALE_S, lines
from plumbob.driver.run_folder.folder import STATUS_FILE, SUMMARY_FILE
from plumbob.driver.steering import RunState
from plumbob.trainers.metrics.response_counts import CountsByVersion, ResponseCounts
from tests.support.run_statuses import NO_STATUS, at_step


def test_a_status_that_is_old_says_so() -> None:
    now = time.time()
    found = at_step(NO_STATUS, 3)
    assert lines(RunState(None, replace(found, time=now)))[0] == "running; ppo: step 3 of 9"
    assert lines(RunState(None, replace(found, time=now - STALE_S - 80)))[0].startswith("running, as of 1 min 3")
    over = RunState("runs/a: this run is not running", replace(NO_STATUS, time=now - 7200))
    assert lines(over)[0] == "runs/a: this run is not running\nlast heard of 2 h 00 min ago; no stage yet"
    assert lines(RunState(None, None)) == ["running; no report yet"]
    begun = replace(NO_STATUS, time=now, stage="eval")
    assert lines(RunState(None, begun))[0] == "running; eval: no step yet"
    assert lines(RunState("runs/a: this run has finished", begun))[0].endswith("ago; eval")


def test_all_that_a_run_reports_is_shown() -> None:
    counts = ResponseCounts(issued=8, finished=8, scored=8, trained=7, dropped=Counter(flat=1))
    found = replace(
        at_step(NO_STATUS, 3),
        time=time.time(),
        last_message="rollout-1 is replaced",
        workers={
            "learner": (WorkerStatus("learner-0", "10.0.0.1"),),
            "rollout": (WorkerStatus("rollout-1", "10.0.0.2", "idle", 8),),
        },
        workers_lost=1,
        responses=CountsByVersion({0: counts}, ResponseCounts(), 0),
    )
    assert [line.split() for line in lines(RunState(None, found))] == [
        ["running;", "ppo:", "step", "3", "of", "9"],
        ["seconds", "of", "the", "last", "step:", "sample", "2.000"],
        ["last", "message:", "rollout-1", "is", "replaced"],
        ["workers", "lost", "so", "far:", "1"],
        [],
        ["worker", "host", "state", "done"],
        ["learner-0", "10.0.0.1"],
        ["rollout-1", "10.0.0.2", "idle", "8"],
        [],
        ["responses", "by", "the", "policy", "version", "that", "they", "were", "issued", "under"],
        ["version", "issued", "finished", "scored", "trained", "dropped"],
        ["0", "8", "8", "8", "7", "1", "flat"],
    ]


def test_a_script_tells_a_finished_run_from_a_stopped_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / RESOLVED_FILE).touch()
    (tmp_path / STATUS_FILE).write_text(json.dumps(at_step(NO_STATUS, 9).as_dict()))
    assert main(["status", str(tmp_path), "--json"]) == 0
    stopped = json.loads(capsys.readouterr().out)
    assert (stopped["running"], stopped["finished"], stopped["step"]) == (False, False, 9)
    (tmp_path / SUMMARY_FILE).write_text("{}\n")
    assert main(["status", str(tmp_path), "--json"]) == 0
    finished = json.loads(capsys.readouterr().out)
    assert (finished["running"], finished["finished"], finished["step"]) == (False, True, 9)
    running = RunState(None, at_step(NO_STATUS, 9)).as_dict()
    assert (running["running"], running["finished"]) == (True, False)
