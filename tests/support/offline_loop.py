"""The loop of the offline stages over learners that are none, which note what they are asked."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbob.configs.settings.training import EarlyStoppingSettings, EpochSettings
from plumbob.core.errors import NotFinite, RunStopped
from plumbob.data.record_digest import Inputs
from plumbob.data.tokenization import TokenBatch
from plumbob.trainers.forgetting.retention import RetainedText
from plumbob.trainers.learner.checkpoint import Files
from plumbob.trainers.learner.learner_protocol import MergedUpdate, UpdatePlan
from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.metrics.step_record import StepRecord
from plumbob.trainers.offline.loop import (
    Heldout,
    OfflineStage,
    run_epochs,
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


# 4 epochs of 10 records in batches of 4 are 10 steps; measured after 2, 4, 6, 8 and 10. No step but the last is saved
# for its own sake. The losses at those steps: 3, 1 (the best), 2, 1.5, 0.5 (better still, but two worse came before).
STOPPING = SETTINGS.model_copy(
    update={
        **{"num_epochs": 4, "save_every": 100, "keep_checkpoints": 1, "evaluate_every": 2},
        "early_stopping": EarlyStoppingSettings(patience=2),
    }
)
LOSSES = (9.0, 3.0, 9.0, 1.0, 9.0, 2.0, 9.0, 1.5, 9.0, 0.5)
