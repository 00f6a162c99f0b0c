"""What a method cost and what it brought (`ComparisonRow`), read from the folder that its run left behind."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from plumbob.configs.settings.training import EpochSettings
from plumbob.core.errors import RunFailed
from plumbob.trainers.metrics.sinks.jsonl import read_metrics

TRAINS = ("data", "learn")
"""Phases of a step in which its records are trained on."""


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """A method, and its run.

    Attributes:
        method: its name.
        learning_rate: that it was run with; of several, the one of the lowest held-out loss.
        num_trained: parameters that it trains.
        peak_memory_gib: of the learners, the driver and Ray on this host.
        expected_memory_gib: what `plumbob plan` expects of the same; None where it expects nothing.
        records_per_s: the stage's batch by the seconds of its median step, without the first.
        heldout_loss_before, heldout_loss: before the first step, and of the result.
        retained_growth: perplexity on the retained text, after by before; None where none is given.
        exported_mib: of the weights in the exported folder.
        seconds: of the stage, its workers' start included.
        wh_per_1000_samples: energy of this host for a thousand records, its workers' start included; None where nobody
            counted it.
        folder: of the run.
        curve: (step, training loss).
    """

    method: str
    learning_rate: float
    num_trained: int
    peak_memory_gib: float
    expected_memory_gib: float | None
    records_per_s: float
    heldout_loss_before: float
    heldout_loss: float
    retained_growth: float | None
    exported_mib: float
    seconds: float
    wh_per_1000_samples: float | None
    folder: str
    curve: tuple[tuple[float, float], ...]

    @property
    def gain(self) -> float:
        """How much of the held-out loss is gone."""
        return self.heldout_loss_before - self.heldout_loss

    def as_dict(self) -> dict[str, Any]:
        """As JSON on disk and for scripts."""
        return asdict(self) | {"gain": self.gain}


@dataclass(frozen=True)
class NotCompared:
    """A method that this stage, model or machine refuses, or whose run failed."""

    method: str
    reason: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


Result = ComparisonRow | NotCompared


def comparison_row(
    method: str,
    settings: EpochSettings,
    num_trained: int,
    expected_memory_gib: float | None,
    folder: Path,
    stage: Mapping[str, Any],
) -> ComparisonRow:
    """The row of a finished run.

    Args:
        settings: of the stage.
        stage: its part of the run's summary.

    Raises:
        RunFailed: it ended with a held-out loss that is no number.
    """
    loss = stage["heldout_loss"]
    if not isinstance(loss, float) or not math.isfinite(loss):
        raise RunFailed(f"the held-out loss is {loss} at a learning rate of {settings.learning_rate:g}")
    records = read_metrics(folder)
    seconds = [sum(record.seconds.get(phase, 0.0) for phase in TRAINS) for record in records]
    files = (folder / "policy").glob("*.safetensors")
    losses = [(record.step, record.metrics["loss"]) for record in records]
    growth = stage["retention"]["growth"] if "retention" in stage else math.nan
    return ComparisonRow(
        method=method,
        learning_rate=settings.learning_rate,
        num_trained=num_trained,
        peak_memory_gib=stage["peak_memory_gib"],
        expected_memory_gib=expected_memory_gib,
        records_per_s=settings.batch_size / median(seconds[1:] or seconds),
        heldout_loss_before=stage["heldout_loss_before"],
        heldout_loss=loss,
        retained_growth=growth if math.isfinite(growth) else None,
        exported_mib=sum(file.stat().st_size for file in files) / 2**20,
        seconds=stage["seconds"],
        wh_per_1000_samples=stage.get("energy", {}).get("wh_per_1000_samples"),
        folder=str(folder),
        curve=tuple((float(step), loss) for step, loss in losses if math.isfinite(loss)),
    )
