"""How long a stage has lasted, and how long it will take yet."""

import time
from dataclasses import dataclass

from plumbob.trainers.metrics.step_record import StepRecord


@dataclass
class StageClock:
    """Time left of one stage, from the steps seen since it began (a resumed stage does not begin at step 1).

    The first step says by its phases how long it took: what came before it, such as the start of the workers, does
    not come again.
    """

    began: float
    first: StepRecord | None = None
    first_ended: float = 0.0

    @classmethod
    def start(cls) -> "StageClock":
        return cls(time.monotonic())

    def elapsed_s(self) -> float:
        return time.monotonic() - self.began

    def remaining_s(self, record: StepRecord) -> float:
        """Called with each step, when it has ended."""
        now = time.monotonic()
        if self.first is None or record.step <= self.first.step:  # Begun again, from an earlier checkpoint.
            self.first, self.first_ended = record, now
        num_seen = record.step - self.first.step
        step_s = (now - self.first_ended) / num_seen if num_seen else sum(self.first.seconds.values())
        return step_s * (record.num_steps - record.step)
