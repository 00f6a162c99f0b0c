"""What a stage ends with: the record of its metrics and notes, and its part of `summary.json`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class StageResult:
    """What a stage's work comes to.

    Attributes:
        metrics: name -> number, text, or a list or mapping of them, as JSON has them.
        notes: sentences for a person; None where the stage has nothing that it could say.
        policies: policy -> its metrics, where several were measured beside each other; None elsewhere.
    """

    metrics: Mapping[str, Any]
    notes: tuple[str, ...] | None = None
    policies: Mapping[str, Mapping[str, Any]] | None = None

    def with_metrics(self, metrics: Mapping[str, Any], *notes: str) -> "StageResult":
        """The same with more metrics, and more notes at the end."""
        both = (*(self.notes or ()), *notes)
        return StageResult({**self.metrics, **metrics}, both if notes else self.notes, self.policies)

    def as_dict(self) -> dict[str, Any]:
        """As JSON on disk and for scripts."""
        notes = {} if self.notes is None else {"notes": list(self.notes)}
        policies = {} if self.policies is None else {"policies": {name: dict(m) for name, m in self.policies.items()}}
        return {**self.metrics, **policies, **notes}


@dataclass(frozen=True)
class StageSummary:
    """A stage's part of `summary.json`.

    Attributes:
        result: what its work came to.
        seconds: from its beginning, the start of its workers included.
        peak_memory_gib: of the driver and its workers on this host.
        energy: of this host, as `stage_energy` gives it; None where nobody counted.
    """

    result: StageResult
    seconds: float
    peak_memory_gib: float
    energy: Mapping[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """As JSON on disk."""
        energy = {} if self.energy is None else {"energy": dict(self.energy)}
        return {**self.result.as_dict(), "seconds": self.seconds, "peak_memory_gib": self.peak_memory_gib, **energy}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """What `as_dict` gave."""
        metrics = dict(content)
        seconds, peak, energy = metrics.pop("seconds"), metrics.pop("peak_memory_gib"), metrics.pop("energy", None)
        notes, policies = metrics.pop("notes", None), metrics.pop("policies", None)
        return cls(StageResult(metrics, None if notes is None else tuple(notes), policies), seconds, peak, energy)


@dataclass(frozen=True)
class FinishedStages:
    """What the stages of a run came to, in the order in which they ran."""

    stages: Mapping[str, StageSummary]

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Stage -> all that is known of it, as `summary.json` has it."""
        return {name: summary.as_dict() for name, summary in self.stages.items()}
