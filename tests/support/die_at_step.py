"""A driver that is killed: `python -m tests.support.die_at_step STEP CONFIG a.b=c ...`, by SIGKILL as the step ends."""

import os
import signal
import sys

from plumbob.configs.load_run import load_run
from plumbob.console.display import PlainConsole
from plumbob.driver.api import run
from plumbob.trainers.metrics.step_record import StepRecord


class DyingConsole(PlainConsole):
    """Prints like any other until the step that kills the process, which cannot be caught nor tidied up after."""

    last_step: int = 0

    def stepped(self, record: StepRecord) -> None:
        super().stepped(record)
        if record.step == self.last_step:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    console = DyingConsole(sys.stdout)
    console.last_step = int(sys.argv[1])
    run(load_run(sys.argv[2], sys.argv[3:]), console)
