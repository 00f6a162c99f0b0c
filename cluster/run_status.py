"""Where a run stands while it is running: as one typed record, and as gauges for Prometheus."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from ray.util.metrics import Gauge

from plumbob.cluster.resources import ResourceNeed, WorkerRole
from plumbob.trainers.metrics.response_counts import CountsByVersion
from plumbob.trainers.metrics.step_record import ResponseSample, StepRecord

MESSAGE_CHARS = 2000
"""Of the last message, so that no long one makes the status large."""

OTHER_THAN_WORDS = re.compile(r"\W", re.ASCII)
"""What a name in Prometheus may not have."""

DONE_KEYS: Mapping[WorkerRole, str] = {"rollout": "answers", "scorer": "scores", "gold_scorer": "scores"}
"""Role -> what JSON calls the number of items that a worker has done; a learner counts none."""


@dataclass(frozen=True)
class WorkerStatus:
    """What one worker is doing, for people.

    Attributes:
        state: what it is doing; None for a learner.
        num_done: responses or scores so far; None for a learner.
    """

    worker: str
    host: str
    state: str | None = None
    num_done: int | None = None


@dataclass(frozen=True)
class AutoscaleBounds:
    """How many rollout workers a run that scales by itself may have."""

    min_workers: int
    max_workers: int


@dataclass(frozen=True)
class RunStatus:
    """What a run reports. As large after the last step as after the first.

    Attributes:
        time: when it was made, in seconds since 1970.
        stage: None before the first.
        step: the last of that stage; None before its first.
        last_message: the newest for the user, at most MESSAGE_CHARS of it.
        workers: role -> its workers; a role that has none now may be missing.
        rollout: the rollout workers as a group, `count` the number wanted now; None while there are none.
        minimum_needs: the groups that the run cannot do without.
        autoscale: None where it does not scale by itself, or no rollout workers have been started.
        workers_lost: since the run began.
        responses: what became of them; None outside online stages.
    """

    time: float
    stage: str | None
    step: StepRecord | None
    last_message: str
    workers: Mapping[WorkerRole, tuple[WorkerStatus, ...]]
    rollout: ResourceNeed | None
    minimum_needs: tuple[ResourceNeed, ...]
    autoscale: AutoscaleBounds | None
    workers_lost: int
    responses: CountsByVersion | None

    def as_dict(self) -> dict[str, Any]:
        """What JSON can carry: the content of `status.json`, and what a control actor tells a person."""
        return {
            "time": self.time,
            **({} if self.stage is None else {"stage": self.stage}),
            **({} if self.step is None else _step_as_dict(self.step)),
            "last_message": self.last_message,
            "workers": {role: [_row_as_dict(role, row) for row in rows] for role, rows in self.workers.items()},
            "rollout": None if self.rollout is None else asdict(self.rollout),
            "least": [asdict(need) for need in self.minimum_needs],
            "autoscale": None if self.autoscale is None else asdict(self.autoscale),
            "workers_lost": self.workers_lost,
            "answers": None if self.responses is None else self.responses.as_dict(),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The status that `as_dict` made this of. Raises KeyError or TypeError where it is no status."""
        rollout, bounds, responses = content["rollout"], content["autoscale"], content["answers"]
        return cls(
            time=content["time"],
            stage=content.get("stage"),
            step=_step_from_dict(content),
            last_message=content["last_message"],
            workers={
                role: tuple(_row_from_dict(role, row) for row in rows) for role, rows in content["workers"].items()
            },
            rollout=None if rollout is None else ResourceNeed(**rollout),
            minimum_needs=tuple(ResourceNeed(**need) for need in content["least"]),
            autoscale=None if bounds is None else AutoscaleBounds(**bounds),
            workers_lost=content["workers_lost"],
            responses=None if responses is None else CountsByVersion.from_dict(responses),
        )


def counts_by_state(workers: Mapping[WorkerRole, Sequence[WorkerStatus]]) -> dict[str, dict[str, int]]:
    """`WorkerCounts` of the workers by role; a role without any is left out."""
    return {role: dict(Counter(row.state or "" for row in rows)) for role, rows in workers.items() if rows}


def _step_as_dict(record: StepRecord) -> dict[str, Any]:
    step = {"stage": record.stage, "step": record.step, "num_steps": record.num_steps}
    sample = {} if record.sample is None else {"sample": asdict(record.sample)}
    counted: dict[str, Any] = {"num_samples": record.num_samples} if record.num_samples else {}
    counted |= {"joules": dict(record.joules)} if record.joules else {}
    return step | {"metrics": dict(record.metrics), "seconds": dict(record.seconds)} | counted | sample


def _step_from_dict(content: Mapping[str, Any]) -> StepRecord | None:
    if "step" not in content:
        return None
    step = {name: content[name] for name in ("stage", "step", "num_steps", "metrics", "seconds")}
    counted = {name: content[name] for name in ("num_samples", "joules") if name in content}
    return StepRecord(**step, **counted, sample=ResponseSample(**content["sample"]) if "sample" in content else None)


def _row_as_dict(role: WorkerRole, row: WorkerStatus) -> dict[str, Any]:
    content: dict[str, Any] = {"worker": row.worker, "host": row.host}
    if row.state is not None:
        content["state"] = row.state
    if row.num_done is not None:
        content[DONE_KEYS[role]] = row.num_done
    return content


def _row_from_dict(role: WorkerRole, content: Mapping[str, Any]) -> WorkerStatus:
    done = content.get(DONE_KEYS[role]) if role in DONE_KEYS else None
    return WorkerStatus(content["worker"], content["host"], content.get("state"), done)


def gauge_values(record: StepRecord) -> dict[str, float]:
    """Gauge -> value, by the name that it has before Ray puts `ray_` in front."""
    seconds = {f"seconds_{phase}": spent for phase, spent in record.seconds.items()}
    seconds |= {f"joules_{phase}": spent for phase, spent in record.joules.items()}
    step = {"step": float(record.step), "num_steps": float(record.num_steps)}
    values = {**record.metrics, **seconds, **step}
    return {f"plumbob_{OTHER_THAN_WORDS.sub('_', name)}": float(value) for name, value in values.items()}


class RunGauges:
    """The metrics of a run's newest step as gauges of Ray, whose agent on the driver's host serves them to Prometheus.

    `kl` of metrics.jsonl is `ray_plumbob_kl` there, labelled with the run and the stage: Ray puts its name before all.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._gauges: dict[str, Gauge] = {}

    def show(self, record: StepRecord) -> None:
        for name, value in gauge_values(record).items():
            gauge = self._gauges.get(name)
            if gauge is None:
                about = f"{name} of the newest step of a run of Plumbob"
                gauge = self._gauges[name] = Gauge(name, about, tag_keys=("run", "stage"))
            gauge.set(value, {"run": self._run, "stage": record.stage})
