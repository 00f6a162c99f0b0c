"""The loop of every offline stage: batches in a seeded order, an optimizer step each, checkpoints on the way."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import numpy as np
from numpy.typing import NDArray

from configs.stages import Epochs
from data.tokens import EpochBatches
from trainers.checkpoint import Checkpoints
from trainers.errors import NotFinite
from trainers.learners import B, Learners, UpdatePlan
from trainers.metrics import MetricsLog, Phases, StepRecord
from trainers.schedule import learning_rate_scale

HELDOUT_ROWS = 256
"""Held-out records that are measured in one call."""


@dataclass(frozen=True)
class OfflineStage(Generic[B]):
    """A fixed set of records and how they become batches.

    Attributes:
        name: of the stage, in metrics.
        settings: epochs, batch size, schedule, checkpoints.
        seed: of the order.
        num_records: how many there are.
        batch_of: indices of records -> a batch; the same indices at the same step give the same batch.
        tokens_of: batch -> how many tokens it has.
    """

    name: str
    settings: Epochs
    seed: int
    num_records: int
    batch_of: Callable[[NDArray[np.int64], int], B]
    tokens_of: Callable[[B], int]

    @property
    def batches(self) -> EpochBatches:
        return EpochBatches(self.num_records, self.settings.batch_size, self.settings.num_epochs, self.seed)


def run_epochs(stage: OfflineStage[Any], learners: Learners, folder: Path, log: MetricsLog) -> None:
    """Train to the last step, from the newest checkpoint in `folder` when there is one."""
    checkpoints = Checkpoints(folder / "checkpoints", stage.settings.keep_checkpoints)
    num_steps = stage.batches.num_batches
    first_step = resume_learners(checkpoints, learners)
    log.truncate_after(first_step)
    phases = Phases()
    for step in range(first_step, num_steps):
        index = stage.batches.batch_at(step)
        with phases.phase("data"):
            batch = stage.batch_of(index, step)
        scale = learning_rate_scale(stage.settings, step, num_steps)
        with phases.phase("learn"):
            metrics = update_naming_records(learners, batch, UpdatePlan(len(index), 1, scale, stage.seed + step), index)
        seconds = phases.take()
        metrics["learning_rate"] = scale * stage.settings.learning_rate
        metrics["tokens_per_s"] = stage.tokens_of(batch) / sum(seconds.values())
        log.append(StepRecord(stage.name, step + 1, num_steps, metrics, seconds))
        # After the line: resuming drops lines past its checkpoint, and could not bring back one that is missing.
        if (step + 1) % stage.settings.save_every == 0 or step + 1 == num_steps:
            with phases.phase("save"):  # Counted in the next step's line.
                checkpoints.commit(step + 1, learners.save, {})


def resume_learners(checkpoints: Checkpoints, learners: Learners) -> int:
    """Give the learners the newest checkpoint; returns the number of steps that it stands for."""
    checkpoint = checkpoints.newest()
    if checkpoint is None:
        return 0
    learners.load(checkpoint.folder)
    return checkpoint.step


def update_naming_records(
    learners: Learners, batch: Any, plan: UpdatePlan, records: NDArray[np.int64]
) -> dict[str, float]:
    """One update; an error about rows of the batch becomes one about records of the training split."""
    try:
        return learners.update(batch, plan)
    except NotFinite as error:
        names = tuple(int(records[row]) for row in error.rows)
        where = f"; the records are {list(names)} of the training split" if names else ""
        raise NotFinite(f"{error}: no optimizer step was taken with it{where}", names) from error


def heldout_means(
    learners: Learners,
    num_records: int,
    batch_of: Callable[[NDArray[np.int64]], Any],
    weight_of: Callable[[Any], float],
) -> dict[str, float]:
    """Means of the objective's statistics over held-out records, named `heldout_...`; nothing where there are none."""
    sums: dict[str, float] = {}
    total = 0.0
    for start in range(0, num_records, HELDOUT_ROWS):
        batch = batch_of(np.arange(start, min(start + HELDOUT_ROWS, num_records)))
        weight = weight_of(batch)
        total += weight
        for name, mean in learners.evaluate(batch).items():
            sums[name] = sums.get(name, 0.0) + mean * weight
    return {f"heldout_{name}": value / total for name, value in sums.items()} if total else {}
