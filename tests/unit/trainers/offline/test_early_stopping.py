"""Early stopping of the offline stages: where it ends, what it keeps, and that a resume changes none of it."""

from pathlib import Path

import pytest

from plumbob.configs.settings.training import EarlyStoppingSettings
from plumbob.trainers.metrics.sinks.jsonl import read_metrics
from tests.support.offline_loop import LOSSES, STOPPING, FakeLearners, play


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").glob("step-*"))


def test_early_stopping_ends_at_the_best_step_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    learners = FakeLearners(heldout=LOSSES)
    metrics = play(tmp_path, learners, STOPPING)
    (note,) = metrics.pop("notes")
    assert metrics == {"heldout_loss": 1.0, "best_step": 4, "stopped_at_step": 8}
    assert "after step 8 of 10" in note and "2 measurements in a row" in note and "step 4, of held-out loss 1" in note
    # What is exported is what the learners hold at the end.
    assert learners.loaded == ["step-000004"]
    # Of keep_checkpoints=1 the newest stays, and beside it the best; step 2 was the best until step 4 came.
    assert checkpoints(tmp_path) == ["step-000004", "step-000008"]
    lines = read_metrics(tmp_path)
    assert [(line.step, line.metrics["heldout_loss"]) for line in lines if "heldout_loss" in line.metrics] == [
        *((2, 3.0), (4, 1.0), (6, 2.0), (8, 1.5))
    ]
    assert len(lines) == 8


def test_patience_that_lasts_to_the_end_takes_the_last_step_when_it_is_the_best(tmp_path: Path) -> None:
    learners = FakeLearners(heldout=LOSSES)
    patient = STOPPING.model_copy(update={"early_stopping": EarlyStoppingSettings(patience=3)})
    assert play(tmp_path, learners, patient) == {"heldout_loss": 0.5, "best_step": 10, "notes": []}
    assert learners.loaded == []


def test_a_fall_below_min_delta_is_no_improvement(tmp_path: Path) -> None:
    # From 3 to 1 is 2, not more than min_delta=2: nothing improves on step 2, and after steps 4 and 6 it is over.
    wide = STOPPING.model_copy(update={"early_stopping": EarlyStoppingSettings(patience=2, min_delta=2.0)})
    metrics = play(tmp_path, FakeLearners(heldout=LOSSES), wide)
    assert (metrics["best_step"], metrics["stopped_at_step"], metrics["heldout_loss"]) == (2, 6, 3.0)


def test_without_early_stopping_the_last_step_is_the_result(tmp_path: Path) -> None:
    every = STOPPING.model_copy(update={"early_stopping": None})
    assert play(tmp_path, FakeLearners(heldout=(*LOSSES[:-1], 7.0)), every) == {"heldout_loss": 7.0, "notes": []}
    assert [line.step for line in read_metrics(tmp_path) if "heldout_loss" in line.metrics] == [2, 4, 6, 8, 10]


@pytest.mark.parametrize("dies_in_save", [2, 3])
def test_early_stopping_resumes_as_if_nothing_had_happened(tmp_path: Path, dies_in_save: int) -> None:
    # Saved are steps 2 and 4, each the best so far, and 8, where it stops. The death is in the second or third save.
    with pytest.raises(KeyboardInterrupt):
        play(tmp_path, FakeLearners(dies_in_save=dies_in_save, heldout=LOSSES), STOPPING)
    resumed = FakeLearners(heldout=LOSSES)
    metrics = play(tmp_path, resumed, STOPPING)
    assert (metrics["best_step"], metrics["stopped_at_step"]) == (4, 8)
    assert resumed.loaded == [f"step-{2 * (dies_in_save - 1):06d}", "step-000004"]
    assert len(read_metrics(tmp_path)) == 8
    # Dying after the last save, before the result is written: nothing is learnt again, and the metrics are the same.
    again = FakeLearners(heldout=LOSSES)
    assert play(tmp_path, again, STOPPING) == metrics
    assert again.batches == [] and again.loaded == ["step-000008", "step-000004"]
