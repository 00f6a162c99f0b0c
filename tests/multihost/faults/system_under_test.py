"""The system that a fault is injected into (SystemUnderTest): a run that waits at a breakpoint, and its hosts."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from tests.multihost.driver import RayConsole
from tests.multihost.faults.stepped_run import SteppedRun
from tests.multihost.hosts import Hosts, SimulatedHost

TITLES = {"rollout": "ray::RolloutWorker", "scorer": "ray::ScorerWorker", "learner": "ray::LearnerWorker"}
"""Role -> the name of its processes."""

WITHIN_S = 0.3
"""A fault comes so long after its phase has begun, at most, or at its end."""

Losses = Mapping[str, int]
"""Role -> how many of its workers a fault takes from the run, which has to say so of each."""

NOTHING: Losses = {}


@dataclass(frozen=True)
class Fault:
    """What happens to whom, in which phase of a step."""

    kind: str
    target: str
    phase: str


@dataclass(frozen=True)
class SystemUnderTest:
    """A run and its hosts.

    Attributes:
        hosts: their head holds the driver and no worker.
        console: of a driver that is not disturbed.
        random: chooses what the fault leaves open.
    """

    hosts: Hosts
    console: RayConsole
    run: SteppedRun
    random: Random

    def workers(self, role: str) -> list[tuple[SimulatedHost, int]]:
        """The processes of that role."""
        return [(host, pid) for host in self.hosts.all[1:] for pid in host.pids(TITLES[role])]

    def worker(self, role: str) -> tuple[SimulatedHost, int]:
        """One of them; the first call of a replacement may still be under way."""
        found: list[tuple[SimulatedHost, int]] = []

        def is_there() -> bool:
            found[:] = self.workers(role)
            return bool(found)

        self.run.run_until(is_there)
        return self.random.choice(found)

    def one_of_each_role_on(self, host: SimulatedHost) -> Losses:
        """Of every role that has a worker there."""
        return {role: 1 for role, title in TITLES.items() if host.pids(title)}

    def enter_phase(self) -> None:
        """Let the phase begin, and some of it pass."""
        self.run.release()
        self.run.listen(self.random.uniform(0.0, WITHIN_S))

    def wait(self, seconds: float) -> None:
        """Let the run continue to its next breakpoint meanwhile."""
        end = time.monotonic() + seconds
        self.run.run_until(lambda: time.monotonic() > end)

    def node_ids(self, host: SimulatedHost) -> set[str]:
        """What Ray knows the host by, until its Ray is started again; nothing once it takes it for dead."""
        return {node_id for node_id, address in self.console.node_ids().items() if address == host.address}

    def wait_until_dead(self, node_ids: set[str]) -> None:
        """Until Ray takes them for dead."""
        self.run.run_until(lambda: node_ids.isdisjoint(self.console.node_ids()))

    def is_whole(self) -> bool:
        return len(self.console.alive()) == len(self.hosts.all)
