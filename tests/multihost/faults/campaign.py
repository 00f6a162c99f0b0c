"""Plays runs with faults on three hosts and tells what became of each: `python -m tests.multihost.faults.campaign`."""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import median

from plumbob.trainers.learner.checkpoint import DamagedError
from tests.multihost.driver import RayConsole, ray_console
from tests.multihost.faults.catalogue import Setting, settings
from tests.multihost.faults.checks import (
    Undisturbed,
    check_complete,
    check_equal,
    check_published,
    check_same_policy,
    check_sampled,
    follow,
)
from tests.multihost.faults.kinds import inject, restore_system
from tests.multihost.faults.report import table
from tests.multihost.faults.stepped_run import RunEndedError, SteppedRun
from tests.multihost.faults.system_under_test import Fault, SystemUnderTest
from tests.multihost.hosts import Hosts, missing
from tests.multihost.inputs import write_inputs
from tests.support.full_disk import small_disk
from tests.support.small_run import Left

NUM_HOSTS = 3

FIRST_STEP = 3
"""That is struck: there are two checkpoints then, of which one may be damaged."""
DISK = "256m"
"""Of the storage, which some faults fill."""

PROMPTS, SAMPLES = 4, 2
"""A step's prompts, and responses to each."""

SHARES: dict[str, object] = {
    # One host alone has room for all workers.
    **{"rollout.num_workers": 2, "rollout.num_cpus": 0.2, "reward.num_cpus": 0.2, "learner.num_cpus": 0.2},
    # Two chunks, one for each rollout worker.
    **{"online.prompts_per_step": PROMPTS, "online.samples_per_prompt": SAMPLES, "rollout.chunk_size": 4},
    # Of each version that a response may have been sampled from.
    "online.keep_checkpoints": 3,
    # A dead driver's workers are still ending when it comes back.
    **{"cluster.wait_s": 60, "cluster.boot_timeout_s": 240, "cluster.call_timeout_s": 120},
}


@dataclass(frozen=True)
class Outcome:
    """What became of one fault.

    Attributes:
        step: 1-based, of the run.
        said: the run's messages from the fault to the end of the step after its own.
        lost_s: seconds that these two steps took beyond two undisturbed ones, but for those that they were held.
    """

    run: str
    fault: Fault
    step: int
    said: tuple[str, ...]
    lost_s: float


@dataclass
class SettingResult:
    """Runs that were played.

    Attributes:
        step_s: setting -> median seconds of an undisturbed step.
        num_steps: of all disturbed runs together.
        failures: what went wrong, with the faults of the run so far.
    """

    seed: int
    seconds: float = 0.0
    step_s: dict[str, float] = field(default_factory=dict)
    num_steps: int = 0
    outcomes: list[Outcome] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


class Campaign:
    """Three hosts with one Ray, on which one run follows the other.

    Attributes:
        played: what has been played; kept in the file `result` after each run.

    Args:
        inputs: settings of all runs, with models and prompts.
        logs: of the drivers, on the machine.
    """

    def __init__(
        self, hosts: Hosts, console: RayConsole, inputs: dict[str, object], logs: Path, seed: int, result: Path
    ) -> None:
        self._hosts, self._console, self._inputs, self._logs = hosts, console, inputs, logs
        self._random = Random(seed)
        self._num_runs = 0
        self._result = result
        self._began = time.monotonic()
        self.played = SettingResult(seed)

    def play(self, setting: Setting, faults_per_run: int) -> None:
        """All faults of the setting, over as many runs as that takes, and a run without any."""
        num_steps = FIRST_STEP + 2 * min(faults_per_run, len(setting.faults))
        run = self._start(setting, num_steps)
        undisturbed = follow(run, num_steps)
        times = [run.done[step] for step in range(1, num_steps + 1)]
        self.played.step_s[setting.name] = median(after - before for before, after in pairwise(times))
        print(f"{setting.name}: {self.played.step_s[setting.name]:.2f} s a step", flush=True)
        left = list(setting.faults)
        while left:
            now, left = left[:faults_per_run], left[faults_per_run:]
            left = [*self._disturb(setting, num_steps, now, undisturbed), *left]
            self.played.seconds = time.monotonic() - self._began
            self._result.write_text(json.dumps(asdict(self.played), indent=2) + "\n")

    def _start(self, setting: Setting, num_steps: int) -> SteppedRun:
        name = f"{setting.name}-{self._num_runs}"
        self._num_runs += 1
        run = SteppedRun(self._hosts.head, self._hosts.shared / "runs" / name, self._logs / f"{name}.log")
        own: dict[str, object] = {"online.num_steps": num_steps, "cluster.address": self._hosts.ray_address}
        run.start(self._inputs, SHARES, setting.own, own)
        return run

    def _disturb(
        self, setting: Setting, num_steps: int, faults: Sequence[Fault], undisturbed: Undisturbed
    ) -> Sequence[Fault]:
        """One run with its faults, every second step one.

        Returns those that have to be played again because the run did not survive another.
        """
        run = self._start(setting, num_steps)
        system = SystemUnderTest(self._hosts, self._console, run, self._random)
        outcomes: list[Outcome] = []
        try:
            for fault in faults:
                outcomes.append(self._hit(setting, system, fault, FIRST_STEP + 2 * len(outcomes), undisturbed))
            run.run_to_end()
            check(run, num_steps, setting, undisturbed)
            if setting.max_staleness == 0:
                check_same_policy(Left(run.folder), undisturbed.left)
        except (AssertionError, RunEndedError, DamagedError, RuntimeError, ValueError, OSError) as error:
            struck = faults[len(outcomes) :][:1] or faults
            self.played.failures.append(f"{run.folder.name}, {', '.join(map(str, struck))}: {error}")
            print(f"{self.played.failures[-1]}\nsaid: {run.said}", flush=True)
            run.kill()
            self._hosts.put_back(self._console.alive)
            return [fault for fault in faults if fault not in struck]
        self.played.num_steps += num_steps
        self.played.outcomes += outcomes
        return []

    def _hit(
        self, setting: Setting, system: SystemUnderTest, fault: Fault, step: int, undisturbed: Undisturbed
    ) -> Outcome:
        run = system.run
        said = inject(system, fault, step)
        lost_s = run.done[step + 1] - run.done[step - 1] - 2 * self.played.step_s[setting.name]
        check(run, step + 1, setting, undisturbed)
        restore_system(system)
        print(f"{run.folder.name}, step {step}: {fault}: {lost_s:.1f} s lost; {said}", flush=True)
        return Outcome(run.folder.name, fault, step, said, lost_s)


def check(run: SteppedRun, step: int, setting: Setting, undisturbed: Undisturbed) -> None:
    """That a run which has done so many steps has left what it ought to. Raises AssertionError."""
    left = Left(run.folder)
    check_complete(left, step * PROMPTS, SAMPLES)
    check_published(left, setting.max_staleness, run.said)
    check_sampled(left, step)
    if setting.max_staleness == 0:
        check_equal(left, step, undisturbed)


@contextmanager
def campaign(seed: int, result: Path) -> Iterator[Campaign]:
    """Three hosts, of which the first is the head and has room for no worker."""
    with ExitStack() as made:
        shared = made.enter_context(small_disk(DISK))
        logs = Path(made.enter_context(tempfile.TemporaryDirectory()))
        hosts = made.enter_context(Hosts(NUM_HOSTS, shared, logs))
        hosts.head.start_ray(None, num_cpus=0)
        hosts.head.await_ray()
        for host in hosts.all[1:]:
            host.start_ray(hosts.ray_address, num_cpus=1)
        for host in hosts.all[1:]:
            host.await_ray()
        console = made.enter_context(ray_console(hosts.head, hosts.ray_address))
        yield Campaign(hosts, console, write_inputs(shared), logs, seed, result)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults-per-run", type=int, default=12)
    parser.add_argument("--settings", nargs="*", help="only these kinds of run")
    parser.add_argument("--kinds", nargs="*", help="only these kinds of fault")
    parser.add_argument("--first", type=int, help="only so many faults of each kind of run")
    parser.add_argument("--result", type=Path, default=Path("runs/faults.json"))
    asked = parser.parse_args(arguments)
    lacking = missing()
    if lacking:
        print(lacking, file=sys.stderr)
        return 2
    asked.result.parent.mkdir(parents=True, exist_ok=True)
    with campaign(asked.seed, asked.result) as played_on:
        for setting in settings(Random(asked.seed)):
            chosen = [fault for fault in setting.faults if not asked.kinds or fault.kind in asked.kinds][: asked.first]
            if chosen and (not asked.settings or setting.name in asked.settings):
                played_on.play(replace(setting, faults=tuple(chosen)), asked.faults_per_run)
    print(table(json.loads(asked.result.read_text())))
    return 1 if played_on.played.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
