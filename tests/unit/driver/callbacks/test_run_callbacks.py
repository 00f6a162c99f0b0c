"""What a program is called back with, and that a callback which fails ends no run."""

from pathlib import Path
from typing import Any

import pytest

from plumbob.core.errors import RunStopped
from plumbob.driver.callbacks.run_callbacks import CallbackListener, RunCallback, RunEnding
from plumbob.trainers.learner.checkpoint import Checkpoint
from plumbob.trainers.metrics.step_record import StepRecord
from tests.support.recording_listener import Watching

STEP = StepRecord("sft", 1, 2, {"loss": 2.0}, {})
CHECKPOINT = Checkpoint(Path("checkpoints/step-000001"), 1, {})


class StepsOnly(RunCallback):
    """Keeps steps, and leaves the rest to the protocol."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def step_ended(self, record: StepRecord) -> None:
        self.steps.append(record.step)


class EveryCall(RunCallback):
    def __init__(self, raises: BaseException | None = None) -> None:
        self.calls: list[Any] = []
        self.raises = raises

    def step_ended(self, record: StepRecord) -> None:
        self._note(record.step)

    def checkpoint_saved(self, stage: str, checkpoint: Checkpoint) -> None:
        self._note((stage, checkpoint.step))

    def run_ended(self, ending: RunEnding) -> None:
        self._note(ending)

    def _note(self, what: Any) -> None:
        self.calls.append(what)
        if self.raises is not None:
            raise self.raises


ENDING = RunEnding(Path("runs/mine"), {"name": "mine"}, None)


def test_each_callback_hears_of_what_it_asks_about() -> None:
    few, every = StepsOnly(), EveryCall()
    listener = CallbackListener(Watching(), (few, every))
    listener.stepped(STEP)
    listener.saved("sft", CHECKPOINT)
    listener.ended(ENDING)
    assert few.steps == [1] and every.calls == [1, ("sft", 1), ENDING]


def test_one_that_fails_is_told_of_once_and_the_others_are_called() -> None:
    watching, failing, after = Watching(), EveryCall(KeyError("kl")), EveryCall()
    listener = CallbackListener(watching, (failing, after))
    listener.stepped(STEP)
    listener.stepped(STEP)
    listener.ended(ENDING)
    assert failing.calls == after.calls == [1, 1, ENDING]
    ((stage, message),) = watching.notes
    assert stage == "callbacks"
    assert message.startswith("EveryCall failed: KeyError: 'kl'; the run continues, and further failures")
    assert "test_run_callbacks.py" in message


def test_one_may_stop_the_run() -> None:
    listener = CallbackListener(Watching(), (EveryCall(RunStopped("good enough")),))
    with pytest.raises(RunStopped, match="good enough"):
        listener.stepped(STEP)
    with pytest.raises(RunStopped, match="good enough"):
        listener.saved("sft", CHECKPOINT)
    listener.ended(ENDING)
