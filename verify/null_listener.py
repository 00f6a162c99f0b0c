"""A listener that shows nothing (NullListener)."""

from plumbob.trainers.metrics.stage_result import StageSummary
from plumbob.trainers.metrics.step_record import StepRecord, WorkerCounts


class NullListener:
    """For runs that nobody looks at."""

    def stage_began(self, stage: str) -> None: ...

    def stepped(self, record: StepRecord) -> None: ...

    def notify(self, stage: str, message: str) -> None: ...

    def workers_changed(self, workers: WorkerCounts) -> None: ...

    def stage_ended(self, stage: str, summary: StageSummary) -> None: ...
