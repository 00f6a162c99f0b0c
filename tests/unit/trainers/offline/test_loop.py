"""The loop of the offline stages with a fake of the learners: order, resuming, early stopping, named records."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from plumbob.configs.settings.data import RetentionSettings
from plumbob.configs.settings.training import EarlyStoppingSettings, EpochSettings
from plumbob.configs.settings.workers import LearnerSettings
from plumbob.core.errors import NotFinite, RunStopped, UserError
from plumbob.data.record_digest import Inputs
from plumbob.data.tokenization import TokenBatch, TokenSequence
from plumbob.trainers.forgetting.packed_text import PackedText
from plumbob.trainers.forgetting.retention import RetainedText
from plumbob.trainers.learner.checkpoint import Files
from plumbob.trainers.learner.learner_protocol import MergedUpdate, UpdatePlan
from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.metrics.sinks.jsonl import read_metrics
from plumbob.trainers.metrics.step_record import StepRecord
from plumbob.trainers.offline.loop import (
    HELDOUT_ROWS,
    Heldout,
    OfflineStage,
    check_heldout,
    heldout_means,
    run_epochs,
    small_batch_notes,
)


class Watcher:
    def __init__(self, stops_at: int | None = None) -> None:
        self._stops_at = stops_at

    def stepped(self, record: StepRecord) -> None:
        if record.step == self._stops_at:
            raise RunStopped("good enough")


class FakeLearners:
    """Notes what it is asked; fails at one update when told to."""

    def __init__(
        self,
        fails_at: int | None = None,
        dies_in_save: int | None = None,
        heldout: Sequence[float] = (),
        steps_done: int = 0,
        stops_before: int | None = None,
    ) -> None:
        self.batches: list[list[int]] = []
        self.plans: list[UpdatePlan] = []
        self.saved: list[str] = []
        self.loaded: list[str] = []
        self._fails_at, self._dies_in_save = fails_at, dies_in_save
        self._heldout, self.step, self._stops_before = heldout, steps_done, stops_before

    def update(self, batch: Any, plan: UpdatePlan) -> MergedUpdate:
        if self.step + 1 == self._stops_before:
            raise RunStopped("the run was asked to stop")
        self.step += 1
        if len(self.batches) == self._fails_at:
            raise NotFinite("the policy's loss is nan", (1, 3))
        self.batches.append(batch.tolist())
        self.plans.append(plan)
        return MergedUpdate({"loss": 2.0}, {})

    def evaluate(self, batch: Any) -> dict[str, float]:
        return {"loss": self._heldout[self.step - 1] if self._heldout else float(batch.mean())}

    def compute(self, batch: TokenBatch, role: str, function: Any) -> NDArray[np.float32]:
        """Each token costs 1 nat before the first step, and a tenth more after each."""
        return -(1 + self.step / 10) * (batch.lengths - 1).astype(np.float32)

    def save(self, folder: Path) -> Files:
        self.saved.append(folder.name.split(".")[1])
        if len(self.saved) == self._dies_in_save:
            raise KeyboardInterrupt
        return {}

    def load(self, folder: Path) -> None:
        self.loaded.append(folder.name)
        self.step = int(folder.name.removeprefix("step-"))


SETTINGS = EpochSettings(
    learning_rate=0.5, num_epochs=2, batch_size=4, save_every=2, schedule="linear", warmup_fraction=0.0
)

SAME = Inputs({"data.demonstrations": "data.demonstrations=d.jsonl"}, {"data.demonstrations": "0123"})


def play(
    folder: Path,
    learners: FakeLearners,
    settings: EpochSettings = SETTINGS,
    retained: RetainedText | None = None,
    inputs: Inputs = SAME,
    num_records: int = 10,
    wants_save: Callable[[], bool] = lambda: False,
    stops_at: int | None = None,
) -> dict[str, Any]:
    """10 records in batches of 4; one record is held out, and its loss is what the fake was given."""
    heldout = Heldout(1, lambda index: index, len)
    stage = OfflineStage(
        name="sft",
        settings=settings,
        seed=3,
        num_records=num_records,
        batch_of=lambda index, step: index,
        tokens_of=len,
        heldout=heldout,
        inputs=inputs,
        retained=retained,
    )
    with MetricsLog(folder, Watcher(stops_at), is_save_requested=wants_save) as log:  # type: ignore[arg-type]
        return run_epochs(stage, learners, folder, log).as_dict()  # type: ignore[arg-type]


def test_every_record_once_an_epoch_with_a_checkpoint_on_the_way(tmp_path: Path) -> None:
    learners = FakeLearners()
    play(tmp_path, learners)
    # 2 epochs of 10 records in batches of 4: 5 steps; saved after 2, 4 and the last, which is 5.
    given = [record for batch in learners.batches for record in batch]
    assert sorted(given[:10]) == sorted(given[10:]) == list(range(10))
    assert learners.saved == [f"step-00000{step}" for step in (2, 4, 5)]
    assert [plan.learning_rate_scale for plan in learners.plans] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    assert [plan.seed for plan in learners.plans] == [3 * 2**32 + step for step in range(5)]
    assert {(plan.minibatch_size, plan.num_epochs) for plan in learners.plans} == {(4, 1)}
    steps = read_metrics(tmp_path)
    assert [(s.stage, s.step, s.num_steps) for s in steps] == [("sft", step, 5) for step in range(1, 6)]
    assert steps[1].metrics["learning_rate"] == pytest.approx(0.4) and steps[1].metrics["loss"] == 2.0


def test_a_checkpoint_is_made_where_one_was_asked_for(tmp_path: Path) -> None:
    """Beside those of steps 2, 4 and 5: asked after steps 1 and 3, where none is made otherwise."""
    learners, asked = FakeLearners(), iter([True, False])
    play(tmp_path, learners, wants_save=lambda: next(asked))
    assert learners.saved == [f"step-00000{step}" for step in (1, 2, 4, 5)]
    assert next(asked, None) is None


def test_a_failure_names_the_records_and_a_resume_starts_at_the_checkpoint(tmp_path: Path) -> None:
    whole, first, second = FakeLearners(), FakeLearners(fails_at=3), FakeLearners()
    play(tmp_path / "whole", whole)
    broken = whole.batches[3]
    with pytest.raises(NotFinite) as caught:
        play(tmp_path / "stopped", first)
    assert caught.value.rows == (broken[1], broken[3])
    assert f"records are [{broken[1]}, {broken[3]}] of the training split" in str(caught.value)
    # Steps 1 to 3 were made and the checkpoint is of step 2: step 3 is made again, with the same records.
    play(tmp_path / "stopped", second)
    assert second.loaded == ["step-000002"]
    assert second.batches == whole.batches[2:]
    assert [plan.seed for plan in second.plans] == [plan.seed for plan in whole.plans[2:]]
    assert [s.step for s in read_metrics(tmp_path / "stopped")] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("stops_before", "saved"), [(1, []), (2, [1]), (3, [2]), (4, [2, 3]), (5, [2, 4])], ids=lambda given: str(given)
)
def test_a_run_that_is_stopped_keeps_the_steps_since_its_last_save(
    tmp_path: Path, stops_before: int, saved: list[int]
) -> None:
    whole, first, second = FakeLearners(), FakeLearners(stops_before=stops_before), FakeLearners()
    expected = play(tmp_path / "whole", whole)
    with pytest.raises(RunStopped):
        play(tmp_path / "stopped", first)
    assert first.saved == [f"step-00000{step}" for step in saved]
    assert play(tmp_path / "stopped", second) == expected
    assert first.batches + second.batches == whole.batches
    assert [s.step for s in read_metrics(tmp_path / "stopped")] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("stops_at", [1, 2, 3, 5])
def test_a_run_that_who_hears_of_a_step_stops_keeps_that_step(tmp_path: Path, stops_at: int) -> None:
    whole, first, second = FakeLearners(), FakeLearners(), FakeLearners()
    expected = play(tmp_path / "whole", whole)
    with pytest.raises(RunStopped, match="good enough"):
        play(tmp_path / "stopped", first, stops_at=stops_at)
    assert first.saved[-1] == f"step-00000{stops_at}"
    assert play(tmp_path / "stopped", second) == expected
    assert second.loaded == [f"step-00000{stops_at}"]
    assert first.batches + second.batches == whole.batches
    assert [s.step for s in read_metrics(tmp_path / "stopped")] == [1, 2, 3, 4, 5]


def test_stopped_again_before_its_first_step_a_resumed_run_saves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RunStopped):
        play(tmp_path, FakeLearners(stops_before=4))
    again = FakeLearners(stops_before=4)
    with pytest.raises(RunStopped):
        play(tmp_path, again)
    assert again.saved == [] and again.loaded == ["step-000003"]


def test_a_run_does_not_go_on_with_other_records(tmp_path: Path) -> None:
    with pytest.raises(NotFinite):
        play(tmp_path, FakeLearners(fails_at=3))
    other = Inputs(SAME.files, {"data.demonstrations": "4567"})
    resumed = FakeLearners()
    with pytest.raises(
        UserError, match=r"^data\.demonstrations=d\.jsonl: the records are not those that the run began"
    ):
        play(tmp_path, resumed, inputs=other)
    assert resumed.batches == []


def test_a_death_in_a_commit_costs_no_line(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        play(tmp_path, FakeLearners(dies_in_save=2))
    # The second checkpoint is of step 4, the one that stands of step 2.
    assert [s.step for s in read_metrics(tmp_path)] == [1, 2, 3, 4]
    resumed = FakeLearners()
    play(tmp_path, resumed)
    assert resumed.loaded == ["step-000002"]
    assert [s.step for s in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]


def test_held_out_means_weigh_by_what_they_are_means_of() -> None:
    learners: Any = FakeLearners()
    # Records 0 to 256: 256 of mean 127.5 in the first call, 256 itself in the second; together their mean is 128.
    assert HELDOUT_ROWS == 256
    assert heldout_means(Heldout(257, lambda index: index, len), learners) == {"heldout_loss": pytest.approx(128.0)}
    assert heldout_means(Heldout(0, lambda index: index, len), learners) == {}
    assert np.isclose(heldout_means(Heldout(3, lambda index: index, len), learners)["heldout_loss"], 1.0)


# ------------------------------------------------------------------------------------------------------ early stopping

# 4 epochs of 10 records in batches of 4 are 10 steps; measured after 2, 4, 6, 8 and 10. No step but the last is saved
# for its own sake. The losses at those steps: 3, 1 (the best), 2, 1.5, 0.5 (better still, but two worse came before).
STOPPING = SETTINGS.model_copy(
    update={
        **{"num_epochs": 4, "save_every": 100, "keep_checkpoints": 1, "evaluate_every": 2},
        "early_stopping": EarlyStoppingSettings(patience=2),
    }
)
LOSSES = (9.0, 3.0, 9.0, 1.0, 9.0, 2.0, 9.0, 1.5, 9.0, 0.5)


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").glob("step-*"))


def test_early_stopping_ends_at_the_best_step_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    learners = FakeLearners(heldout=LOSSES)
    figures = play(tmp_path, learners, STOPPING)
    (note,) = figures.pop("notes")
    assert figures == {"heldout_loss": 1.0, "best_step": 4, "stopped_at_step": 8}
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
    figures = play(tmp_path, FakeLearners(heldout=LOSSES), wide)
    assert (figures["best_step"], figures["stopped_at_step"], figures["heldout_loss"]) == (2, 6, 3.0)


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
    figures = play(tmp_path, resumed, STOPPING)
    assert (figures["best_step"], figures["stopped_at_step"]) == (4, 8)
    assert resumed.loaded == [f"step-{2 * (dies_in_save - 1):06d}", "step-000004"]
    assert len(read_metrics(tmp_path)) == 8
    # Dying after the last save, before the result is written: nothing is learnt again, and the figures are the same.
    again = FakeLearners(heldout=LOSSES)
    assert play(tmp_path, again, STOPPING) == figures
    assert again.batches == [] and again.loaded == ["step-000008", "step-000004"]


def test_forgetting_is_measured_from_before_the_first_step_to_the_result(tmp_path: Path) -> None:
    block = TokenSequence(np.arange(4, dtype=np.int32), np.ones(4, np.bool_))
    text = RetainedText(RetentionSettings(text="old.txt", max_growth=1.3), PackedText((block,), 0, ()))
    # Dies in its second save, after which step 2's checkpoint is the newest. The result is step 4, where a token costs
    # 0.4 nats more than at the start: e^0.4 = 1.492.
    with pytest.raises(KeyboardInterrupt):
        play(tmp_path, FakeLearners(dies_in_save=2, heldout=LOSSES), STOPPING, text)
    figures = play(tmp_path, FakeLearners(heldout=LOSSES), STOPPING, text)
    found = {"perplexity_before": math.exp(1.0), "perplexity_after": math.exp(1.4), "growth": math.exp(0.4)}
    assert figures["retention"] == pytest.approx(found)
    stopped, forgotten = figures["notes"]
    assert "stopped early" in stopped and "1.492 times as much: above retention.max_growth=1.3" in forgotten


def test_held_out_records_are_measured_before_the_first_step_too(tmp_path: Path) -> None:
    first = SETTINGS.model_copy(update={"evaluate_first": True})
    # Losses after 1 to 5 steps, and last the one before them. It dies in its second save; what resumes from step 2 has
    # measured nothing before the first.
    losses = (5.0, 4.0, 3.0, 2.0, 1.0, 9.0)
    with pytest.raises(KeyboardInterrupt):
        play(tmp_path, FakeLearners(dies_in_save=2, heldout=losses), first)
    resumed = play(tmp_path, FakeLearners(heldout=losses), first)
    assert resumed == {"heldout_loss": 1.0, "heldout_loss_before": 9.0, "notes": []}


def test_fewer_records_than_a_batch_are_each_learnt_once_a_step(tmp_path: Path) -> None:
    learners = FakeLearners()
    play(tmp_path, learners, num_records=3)
    assert [sorted(batch) for batch in learners.batches] == [[0, 1, 2]] * 2  # 2 epochs, each one step.
    assert {plan.minibatch_size for plan in learners.plans} == {3}


def test_a_smaller_batch_is_told_and_shared_equally() -> None:
    settings, two = EpochSettings(learning_rate=0.1, batch_size=32), LearnerSettings(num_workers=2)
    assert small_batch_notes("sft", settings, 32, two) == ()
    assert small_batch_notes("sft", settings, 6, two) == (
        "6 training records are fewer than sft.batch_size=32: each optimizer step has 6, every record once.",
    )
    with pytest.raises(UserError, match=r"5 training records are fewer than .*cannot share 5 equally.*num_workers=1"):
        small_batch_notes("sft", settings, 5, two)


def test_a_held_out_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(NotFinite, match="step 4: the held-out loss is nan"):
        play(tmp_path, FakeLearners(heldout=(9.0, 3.0, 9.0, math.nan)), STOPPING)


def test_watching_what_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match=r"sft\.evaluate_every=2 measures held-out records, and there are none"):
        check_heldout("sft", STOPPING, 0)
    check_heldout("sft", STOPPING, 1)
    check_heldout("sft", SETTINGS, 0)
    first = SETTINGS.model_copy(update={"evaluate_first": True})
    with pytest.raises(UserError, match=r"sft\.evaluate_first=true measures held-out .* leave sft\.evaluate_first out"):
        check_heldout("sft", first, 0)
    with pytest.raises(ValueError, match="evaluate_every is not set"):
        EpochSettings(learning_rate=0.1, early_stopping=EarlyStoppingSettings())
