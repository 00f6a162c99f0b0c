"""The loop of the offline stages with a fake of the learners: order, resuming, and errors that name records."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.stages import Epochs
from trainers.errors import NotFinite
from trainers.learners import UpdatePlan
from trainers.metrics import MetricsLog, StepRecord, read_metrics
from trainers.offline import HELDOUT_ROWS, OfflineStage, heldout_means, run_epochs


class Watcher:
    def stepped(self, record: StepRecord) -> None: ...


class FakeLearners:
    """Notes what it is asked; fails at one update when told to."""

    def __init__(self, fails_at: int | None = None, dies_in_save: int | None = None) -> None:
        self.batches: list[list[int]] = []
        self.plans: list[UpdatePlan] = []
        self.saved: list[str] = []
        self.loaded: list[str] = []
        self._fails_at, self._dies_in_save = fails_at, dies_in_save

    def update(self, batch: Any, plan: UpdatePlan) -> dict[str, float]:
        if len(self.batches) == self._fails_at:
            raise NotFinite("the policy's loss is nan", (1, 3))
        self.batches.append(batch.tolist())
        self.plans.append(plan)
        return {"loss": 2.0}

    def evaluate(self, batch: Any) -> dict[str, float]:
        return {"loss": float(batch.mean())}

    def save(self, folder: Path) -> None:
        self.saved.append(folder.name)
        if len(self.saved) == self._dies_in_save:
            raise KeyboardInterrupt

    def load(self, folder: Path) -> None:
        self.loaded.append(folder.name)


SETTINGS = Epochs(learning_rate=0.5, num_epochs=2, batch_size=4, save_every=2, schedule="linear", warmup_fraction=0.0)


def play(folder: Path, learners: FakeLearners) -> None:
    stage = OfflineStage("sft", SETTINGS, 3, 10, lambda index, step: index, len)
    with MetricsLog(folder, Watcher()) as log:  # type: ignore[arg-type]
        run_epochs(stage, learners, folder, log)  # type: ignore[arg-type]


def test_every_record_once_an_epoch_with_a_checkpoint_on_the_way(tmp_path: Path) -> None:
    learners = FakeLearners()
    play(tmp_path, learners)
    # 2 epochs of 10 records in batches of 4: 5 steps; saved after 2, 4 and the last, which is 5.
    given = [record for batch in learners.batches for record in batch]
    assert sorted(given[:10]) == sorted(given[10:]) == list(range(10))
    assert learners.saved == [f".step-00000{step}.partial" for step in (2, 4, 5)]
    assert [plan.learning_rate_scale for plan in learners.plans] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    assert [plan.seed for plan in learners.plans] == [3, 4, 5, 6, 7]
    assert {(plan.minibatch_size, plan.num_epochs) for plan in learners.plans} == {(4, 1)}
    steps = read_metrics(tmp_path)
    assert [(s.stage, s.step, s.num_steps) for s in steps] == [("sft", step, 5) for step in range(1, 6)]
    assert steps[1].metrics["learning_rate"] == pytest.approx(0.4) and steps[1].metrics["loss"] == 2.0


def test_a_failure_names_the_records_and_resuming_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
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
    assert heldout_means(learners, 257, lambda index: index, len) == {"heldout_loss": pytest.approx(128.0)}
    assert heldout_means(learners, 0, lambda index: index, len) == {}
    assert np.isclose(heldout_means(learners, 3, lambda index: index, len)["heldout_loss"], 1.0)
