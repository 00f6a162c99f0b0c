"""The loop of the offline stages with a fake of the learners: order, resuming, named records, what it measures."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plumbob.configs.settings.data import RetentionSettings
from plumbob.configs.settings.training import EarlyStoppingSettings, EpochSettings
from plumbob.configs.settings.workers import LearnerSettings
from plumbob.core.errors import NotFinite, RunStopped, UserError
from plumbob.data.record_digest import Inputs
from plumbob.data.tokenization import TokenSequence
from plumbob.trainers.forgetting.packed_text import PackedText
from plumbob.trainers.forgetting.retention import RetainedText
from plumbob.trainers.metrics.sinks.jsonl import read_metrics
from plumbob.trainers.offline.loop import (
    HELDOUT_ROWS,
    Heldout,
    check_heldout,
    heldout_means,
    small_batch_notes,
)
from tests.support.offline_loop import LOSSES, SAME, SETTINGS, STOPPING, FakeLearners, play


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


def test_forgetting_is_measured_from_before_the_first_step_to_the_result(tmp_path: Path) -> None:
    block = TokenSequence(np.arange(4, dtype=np.int32), np.ones(4, np.bool_))
    text = RetainedText(RetentionSettings(text="old.txt", max_growth=1.3), PackedText((block,), 0, ()))
    # Dies in its second save, after which step 2's checkpoint is the newest. The result is step 4, where a token costs
    # 0.4 nats more than at the start: e^0.4 = 1.492.
    with pytest.raises(KeyboardInterrupt):
        play(tmp_path, FakeLearners(dies_in_save=2, heldout=LOSSES), STOPPING, text)
    metrics = play(tmp_path, FakeLearners(heldout=LOSSES), STOPPING, text)
    found = {"perplexity_before": math.exp(1.0), "perplexity_after": math.exp(1.4), "growth": math.exp(0.4)}
    assert metrics["retention"] == pytest.approx(found)
    stopped, forgotten = metrics["notes"]
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
