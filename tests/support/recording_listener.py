"""A listener that keeps what it is told."""

from plumbob.trainers.metrics.stage_result import StageSummary
from plumbob.trainers.metrics.step_record import StepRecord, WorkerCounts


class Watching:
    def __init__(self) -> None:
        self.notes: list[tuple[str, str]] = []

    def notify(self, stage: str, message: str) -> None:
        self.notes.append((stage, message))

    def stage_began(self, stage: str) -> None: ...

    def stepped(self, record: StepRecord) -> None: ...

    def workers_changed(self, workers: WorkerCounts) -> None: ...

    def stage_ended(self, stage: str, summary: StageSummary) -> None: ...
