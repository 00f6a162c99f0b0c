"""A listener for runs that nobody watches."""

from collections.abc import Mapping

from plumbob.trainers.metrics.step_record import StepRecord


class NullListener:
    """Hears everything and says nothing."""

    def stage_began(self, stage: str) -> None: ...

    def stepped(self, record: StepRecord) -> None: ...

    def notify(self, stage: str, message: str) -> None: ...

    def stage_ended(self, stage: str, summary: Mapping[str, object]) -> None: ...
