"""`plumbob` that says where it is and waits there: `python -m tests.multihost.faults.driver COMMAND ...`.

It prints what `plumbob COMMAND ... --json` does, and {"event": "reached"} when a phase of PPO begins, or when the files
of a checkpoint are written and it has not its name yet; there it waits for a line. {"event": "left"} is a phase's end.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plumbob.cluster.worker_groups import LearnerGroup
from plumbob.console.cli import main
from plumbob.console.display import print_json
from plumbob.trainers.online.recorder import OnlineRecorder

AFTER_THE_LINE = ("commit", "publish")
"""Phases that come after their step's line of metrics."""

out = sys.stdout

begin_phase, save = OnlineRecorder.phase, LearnerGroup.save


class PhaseGate:
    """Knows the step, which is 1-based; 0 is before the first."""

    step = 0

    def reach(self, phase: str) -> None:
        print_json({"event": "reached", "step": self.step, "phase": phase}, out)
        sys.stdin.readline()

    def leave(self, phase: str) -> None:
        print_json({"event": "left", "step": self.step, "phase": phase}, out)


guide = PhaseGate()


@contextmanager
def phase(recorder: OnlineRecorder, name: str) -> Iterator[None]:
    num_lines = recorder._monitors.num_steps
    guide.step = num_lines if name in AFTER_THE_LINE else num_lines + 1
    with begin_phase(recorder, name):
        guide.reach(name)
        yield
    guide.leave(name)


def save_and_wait(learners: LearnerGroup, folder: Path) -> tuple[str, ...]:
    files = save(learners, folder)
    guide.reach("rename")
    return files


if __name__ == "__main__":
    OnlineRecorder.phase, LearnerGroup.save = phase, save_and_wait  # type: ignore[assignment, method-assign]
    sys.exit(main([*sys.argv[1:], "--json"]))
