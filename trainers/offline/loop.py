"""The loop of every offline stage: batches in a seeded order, an optimizer step each, checkpoints on the way."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic

import numpy as np
from numpy.typing import NDArray

from plumbob.configs.settings.training import EpochSettings
from plumbob.configs.settings.workers import LearnerSettings
from plumbob.core.errors import NotFinite, RunStopped, UserError
from plumbob.data.epoch_order import EpochBatches, Mixture
from plumbob.data.record_digest import Inputs
from plumbob.trainers.forgetting.retention import RetainedText
from plumbob.trainers.learner.checkpoint import Checkpoint, Checkpoints
from plumbob.trainers.learner.learner_protocol import B, Learners, UpdatePlan, update_seed
from plumbob.trainers.learner.lr_schedule import learning_rate_scale
from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.metrics.stage_result import StageResult
from plumbob.trainers.metrics.step_record import Phases, StepRecord
from plumbob.trainers.offline.early_stopping import BestStep, has_stopped, is_turning_point, next_best

HELDOUT_ROWS = 256
"""Held-out records that are measured in one call."""


@dataclass(frozen=True)
class Heldout(Generic[B]):
    """Records that are never trained on.

    Attributes:
        num_records: how many there are; there may be none.
        batch_of: indices of records -> a batch.
        weight_of: batch -> what its means are means over, such as its tokens or its pairs.
    """

    num_records: int
    batch_of: Callable[[NDArray[np.int64]], B]
    weight_of: Callable[[B], float]

    def portions(self, num_records: int | None = None) -> Iterator[NDArray[np.int64]]:
        """Indices of the records that are measured in one call; of the first so many, None of all."""
        most = self.num_records if num_records is None else min(num_records, self.num_records)
        for start in range(0, most, HELDOUT_ROWS):
            yield np.arange(start, min(start + HELDOUT_ROWS, most))


@dataclass(frozen=True, kw_only=True)
class OfflineStage(Generic[B]):
    """A fixed set of records and how they become batches.

    Attributes:
        name: of the stage, in metrics.
        settings: epochs, batch size, schedule, checkpoints.
        seed: of the order.
        num_records: how many there are.
        batch_of: indices of records -> a batch; the same indices at the same step give the same batch.
        tokens_of: batch -> how many tokens it has.
        heldout: what is measured on the way and at the end.
        inputs: what the records are, by which a resumed run knows them again.
        retained: text that is measured before and after; None measures none.
        mixture: how the files are weighted that the records are of; None uses every record once an epoch.
    """

    name: str
    settings: EpochSettings
    seed: int
    num_records: int
    batch_of: Callable[[NDArray[np.int64], int], B]
    tokens_of: Callable[[B], int]
    heldout: Heldout[B]
    inputs: Inputs
    retained: RetainedText | None = None
    mixture: Mixture | None = None

    @property
    def batches(self) -> EpochBatches:
        return epoch_batches(self.settings, self.num_records, self.seed, self.mixture)

    def is_measured(self, step: int) -> bool:
        """Whether the held-out records are measured after this 1-based step."""
        every = self.settings.evaluate_every
        return step == self.batches.num_batches or (every is not None and step % every == 0)

    def is_saved(self, step: int) -> bool:
        return step == self.batches.num_batches or step % self.settings.save_every == 0


def epoch_batches(settings: EpochSettings, num_records: int, seed: int, mixture: Mixture | None = None) -> EpochBatches:
    """Of fewer records than a batch the batch is as large as an epoch: without a mixture none is in it twice."""
    return EpochBatches(num_records, min(settings.batch_size, num_records), settings.num_epochs, seed, mixture)


def check_heldout(key: str, settings: EpochSettings, num_records: int) -> None:
    """Refuse to watch a held-out loss where nothing is held out. `key` names the settings."""
    if not settings.measures_again or num_records:
        return
    every = settings.evaluate_every
    asked = f"{key}.evaluate_first=true" if every is None else f"{key}.evaluate_every={every}"
    raise UserError(
        f"{asked} measures held-out records, and there are none: raise data.heldout_fraction, give a held-out file, or "
        f"leave {asked.partition('=')[0]} out"
    )


def small_batch_notes(key: str, settings: EpochSettings, num_records: int, learner: LearnerSettings) -> tuple[str, ...]:
    """A sentence where there are fewer records than a batch; UserError where the learners cannot share them equally.

    `key` names the settings.
    """
    if num_records >= settings.batch_size:
        return ()
    few = f"{num_records} training records are fewer than {key}.batch_size={settings.batch_size}"
    if num_records % learner.num_workers:
        divisor = max(n for n in range(1, learner.num_workers) if num_records % n == 0)
        raise UserError(
            f"{few}, and learner.num_workers={learner.num_workers} cannot share {num_records} equally: give more "
            f"records, or set learner.num_workers={divisor}"
        )
    return (f"{few}: each optimizer step has {num_records}, every record once.",)


def run_epochs(stage: OfflineStage[Any], learners: Learners, folder: Path, log: MetricsLog) -> StageResult:
    """Train from the newest checkpoint in `folder`, if there is one, to the last step or where early stopping ends it.

    The learners are left at the last step, or with early stopping at the best one. Returns that step's result: its
    held-out means, which step it is, where training stopped early, and what it has forgotten.
    """
    stopping, num_steps = stage.settings.early_stopping, stage.batches.num_batches
    checkpoints = Checkpoints(folder / "checkpoints", stage.settings.keep_checkpoints, log.saved)
    last = newest = resume_learners(checkpoints, learners, lambda message: log.notify(stage.name, message))
    if newest is not None:
        stage.inputs.check(newest.state["inputs"])
    first_step, best = (0, None) if newest is None else (newest.step, best_of(newest))
    known = measure_before(stage, learners, newest)
    heldout: dict[str, float] = {}

    def commit(step: int) -> Checkpoint:
        state = known | {"heldout": heldout, "best": None if best is None else asdict(best)}
        state |= {"inputs": dict(stage.inputs.digests)}
        return checkpoints.commit(step, learners.save, state, None if best is None else best.step)

    log.truncate_after(first_step)
    phases = log.phases()
    for step in range(first_step + 1, num_steps + 1):
        if has_stopped(best, stopping):
            break
        try:
            metrics = train_step(stage, learners, step, phases)
        except RunStopped:  # Before the step, when asked whether to begin it: those since the last save are kept.
            if step - 1 > (0 if last is None else last.step):
                commit(step - 1)
            raise
        with phases.phase("evaluate"):
            heldout = heldout_means(stage.heldout, learners) if stage.is_measured(step) else {}
        best = best_after(best, step, heldout, stage.settings)
        try:
            seconds, joules, size = phases.take(), phases.take_joules(), stage.batches.batch_size
            log.append(StepRecord(stage.name, step, num_steps, metrics | heldout, seconds, None, size, joules))
        except RunStopped:  # By who heard of the step, which is done.
            commit(step)
            raise
        # After the line: resuming drops lines past its checkpoint, and could not bring back one that is missing.
        if stage.is_saved(step) or is_turning_point(best, step, stopping) or log.is_save_requested():
            with phases.phase("save"):  # Counted in the next step's line.
                last = commit(step)
    assert last is not None, "the last step is always saved"
    result = restore_best_step(checkpoints, learners, last, num_steps).with_metrics(known.get("heldout_before", {}))
    return result if stage.retained is None else stage.retained.added_to(result, known["retained"], learners)


def train_step(stage: OfflineStage[Any], learners: Learners, step: int, phases: Phases) -> dict[str, float]:
    """One optimizer step, of 1-based `step`."""
    index = stage.batches.batch_at(step - 1)
    with phases.phase("data"):
        batch = stage.batch_of(index, step - 1)
    num_steps = stage.batches.num_batches
    scale = learning_rate_scale(stage.settings, step - 1, num_steps)
    plan = UpdatePlan(len(index), 1, scale, update_seed(stage.seed, step - 1), num_steps)
    with phases.phase("learn"):
        metrics = update_naming_records(learners, batch, plan, index)
    metrics["learning_rate"] = scale * stage.settings.learning_rate
    metrics["tokens_per_s"] = stage.tokens_of(batch) / phases.total()
    return metrics


def resume_learners(checkpoints: Checkpoints, learners: Learners, notify: Callable[[str], None]) -> Checkpoint | None:
    """Give the learners the newest whole checkpoint, if there is one; `notify` is told which were passed over."""
    checkpoint = checkpoints.newest(notify)
    if checkpoint is not None:
        learners.load(checkpoint.folder)
    return checkpoint


def measure_before(stage: OfflineStage[Any], learners: Learners, newest: Checkpoint | None) -> dict[str, Any]:
    """What the learners know before the first step, of held-out records and retained text, which checkpoints keep."""
    if newest is not None:
        return {name: newest.state[name] for name in ("heldout_before", "retained") if name in newest.state}
    known: dict[str, Any] = {}
    if stage.settings.evaluate_first:
        means = heldout_means(stage.heldout, learners)
        known["heldout_before"] = {f"{name}_before": value for name, value in means.items()}
    if stage.retained is not None:
        known["retained"] = stage.retained.nats_per_token(learners)
    return known


def best_of(checkpoint: Checkpoint) -> BestStep | None:
    """The best of the steps up to a checkpoint; None without early stopping."""
    best = checkpoint.state["best"]
    return None if best is None else BestStep(**best)


def best_after(
    best: BestStep | None, step: int, heldout: Mapping[str, float], settings: EpochSettings
) -> BestStep | None:
    """The best step once `step` is done; None without early stopping.

    Raises:
        NotFinite: early stopping has nothing to go by.
    """
    if settings.early_stopping is None or not heldout:
        return best
    loss = heldout["heldout_loss"]
    if not math.isfinite(loss):
        raise NotFinite(f"step {step}: the held-out loss is {loss}")
    return next_best(best, step, loss, settings.early_stopping.min_delta)


def restore_best_step(checkpoints: Checkpoints, learners: Learners, last: Checkpoint, num_steps: int) -> StageResult:
    """Leave the learners at the step that is the result: its held-out means, its number, and where training stopped."""
    best = best_of(last)
    if best is None:
        return StageResult(last.state["heldout"], ())
    chosen = checkpoints.at(best.step)
    result = StageResult(dict(chosen.state["heldout"]) | {"best_step": best.step}, ())
    if last.step < num_steps:
        note = (
            f"stopped early after step {last.step} of {num_steps}: the held-out loss did not improve at "
            f"{best.num_since} measurements in a row; the result is step {best.step}, of held-out loss {best.loss:.4g}"
        )
        result = result.with_metrics({"stopped_at_step": last.step}, note)
    if chosen.step != last.step:
        learners.load(chosen.folder)
    return result


def result_step(stage: OfflineStage[Any], result: StageResult) -> int:
    """The 1-based step that the learners are left at: the best one with early stopping, else the last."""
    return int(result.metrics.get("best_step", stage.batches.num_batches))


def update_naming_records(
    learners: Learners, batch: Any, plan: UpdatePlan, records: NDArray[np.int64]
) -> dict[str, float]:
    """One update; an error about rows of the batch becomes one about records of the training split."""
    try:
        return learners.update(batch, plan).metrics
    except NotFinite as error:
        names = tuple(int(records[row]) for row in error.rows)
        where = f"; the records are {list(names)} of the training split" if names else ""
        raise NotFinite(f"{error}: no optimizer step was taken with it{where}", names) from error


def heldout_means(heldout: Heldout[Any], learners: Learners) -> dict[str, float]:
    """Means of the objective's statistics over held-out records, named `heldout_...`; nothing where there are none."""
    sums: dict[str, float] = {}
    total = 0.0
    for index in heldout.portions():
        batch = heldout.batch_of(index)
        weight = heldout.weight_of(batch)
        total += weight
        for name, mean in learners.evaluate(batch).items():
            sums[name] = sums.get(name, 0.0) + mean * weight
    return {f"heldout_{name}": value / total for name, value in sums.items()} if total else {}
