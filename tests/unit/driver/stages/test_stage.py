"""What a stage leaves in `summary.json`, what it says, and how it outlives the loss of its learners."""

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plumbob.cluster.failures import LearnersLost
from plumbob.core.errors import RunPreempted
from plumbob.core.process_ends.stop_signals import stop_signals
from plumbob.driver.stages.stage import StageContext, run_stage, training_stage
from plumbob.trainers.metrics.stage_result import StageResult, StageSummary
from tests.support.recording_listener import Watching


class RestartingSession:
    """Keeps which learners were replaced."""

    def __init__(self) -> None:
        self.replaced: list[str] = []

    def replace_learners(self, lost: LearnersLost) -> None:
        self.replaced.append(str(lost))


@pytest.fixture
def context(tmp_path: Path) -> Any:
    memory = SimpleNamespace(take=lambda: 0.25)
    session: Any = RestartingSession()
    control: Any = SimpleNamespace(saved=None, is_save_requested=None)
    return StageContext(session, control, tmp_path / "mine", Watching(), memory, "sft")  # type: ignore[arg-type]


@pytest.mark.parametrize("notes", [None, (), ("2 rows skipped",)])
def test_a_summary_is_read_back_as_it_was_written(notes: tuple[str, ...] | None) -> None:
    summary = StageSummary(StageResult({"loss": 0.5, "ci": [1.0, 2.0]}, notes), 3.0, 0.25)
    written = summary.as_dict()
    assert written == {
        "loss": 0.5,
        "ci": [1.0, 2.0],
        **({} if notes is None else {"notes": list(notes)}),
        "seconds": 3.0,
        "peak_memory_gib": 0.25,
    }
    assert StageSummary.from_dict(json.loads(json.dumps(written))) == summary


def test_notes_about_the_input_come_before_what_training_found(context: StageContext) -> None:
    stage = training_stage(
        ("1 row skipped",), lambda inner, log: StageResult({"loss": 0.5, "num": 3}, ("stopped early",))
    )
    assert stage(context) == StageResult({"loss": 0.5, "num": 3}, ("1 row skipped", "stopped early"))
    assert context.listener.notes == [("sft", "1 row skipped"), ("sft", "stopped early")]  # type: ignore[attr-defined]
    # A stage that trains always says what it left out, also when that is nothing.
    assert training_stage((), lambda inner, log: StageResult({}))(context).as_dict() == {"notes": []}


def test_a_stage_that_lost_its_learners_begins_again(context: StageContext) -> None:
    deaths = iter([LearnersLost("rank 0 died"), LearnersLost("rank 1 died"), None])

    def dies_twice(inner: StageContext) -> StageResult:
        if (death := next(deaths)) is not None:
            raise death
        return StageResult({"loss": 0.5})

    summary = run_stage(dies_twice, context)
    assert context.session.replaced == ["rank 0 died", "rank 1 died"]  # type: ignore[attr-defined]
    assert (summary.result, summary.peak_memory_gib) == (StageResult({"loss": 0.5}), 0.25)


def test_a_run_that_was_signalled_starts_no_learners_again(context: StageContext) -> None:
    """Whoever signals the driver may have ended its workers too."""

    def dies(inner: StageContext) -> StageResult:
        stop_signals.work_began()
        os.kill(os.getpid(), signal.SIGTERM)
        raise LearnersLost("rank 0 died")

    with pytest.raises(RunPreempted), stop_signals.handled("noted"):
        run_stage(dies, context)
    assert context.session.replaced == ["rank 0 died"]  # type: ignore[attr-defined]
