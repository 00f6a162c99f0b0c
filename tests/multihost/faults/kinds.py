"""The faults: what each does to a run that waits at the moment which the fault hits, and to its hosts."""

import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from cluster.health import wait_until
from tests.full_disk import fill
from tests.multihost.driver import RayConsole
from tests.multihost.faults.driven import Driven, Moment
from tests.multihost.hosts import PATIENCE_S, Host, Hosts
from tests.small_run import Left
from trainers.checkpoint import STATE_FILE

TITLES = {"rollout": "ray::RolloutWorker", "scorer": "ray::ScorerWorker", "learner": "ray::LearnerWorker"}
"""Role -> the name of its processes."""

WITHIN_S = 0.3
"""A fault comes so long after its phase has begun, at most, or at its end."""

WHOLE_S = 120.0
KNOWN_S = 1.0
"""What Ray may take to tell the driver that a worker died."""
FELT_S = 30.0
"""What a run that samples ahead, and goes on doing so while it is held, may take to say that it lost a worker."""

SHORT_CUT_S = (PATIENCE_S / 6, PATIENCE_S / 3)
SLOW_MS, SLOW_KBIT = 20.0, 4000.0


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
class Scene:
    """What a fault may disturb.

    Attributes:
        hosts: their head holds the driver and no worker.
        console: of a driver that is not disturbed.
        random: chooses what the fault leaves open.
    """

    hosts: Hosts
    console: RayConsole
    run: Driven
    random: Random

    def workers(self, role: str) -> list[tuple[Host, int]]:
        """The processes of that role."""
        return [(host, pid) for host in self.hosts.all[1:] for pid in host.pids(TITLES[role])]

    def worker(self, role: str) -> tuple[Host, int]:
        """One of them; the first call of a replacement may still be under way."""
        found: list[tuple[Host, int]] = []

        def is_there() -> bool:
            found[:] = self.workers(role)
            return bool(found)

        self.run.lead_until(is_there)
        return self.random.choice(found)

    def one_of_each_on(self, host: Host) -> Losses:
        """Of every role that has a worker there."""
        return {role: 1 for role, title in TITLES.items() if host.pids(title)}

    def while_it_goes_on(self) -> None:
        """Let the phase begin, and some of it pass."""
        self.run.release()
        self.run.listen(self.random.uniform(0.0, WITHIN_S))

    def wait(self, seconds: float) -> None:
        """Let the run go on as far as it is led meanwhile."""
        end = time.monotonic() + seconds
        self.run.lead_until(lambda: time.monotonic() > end)

    def node_ids(self, host: Host) -> set[str]:
        """What Ray knows the host by, until its Ray is started again; nothing once it takes it for dead."""
        return {node_id for node_id, address in self.console.node_ids().items() if address == host.address}

    def await_end_of(self, node_ids: set[str]) -> None:
        """Until Ray takes them for dead."""
        self.run.lead_until(lambda: node_ids.isdisjoint(self.console.node_ids()))

    def is_whole(self) -> bool:
        return len(self.console.alive()) == len(self.hosts.all)


# ---------------------------------------------------------------------------------------------------------------- kills


def kill_worker(scene: Scene, fault: Fault) -> Losses:
    """It is stopped before the phase begins, so that what the phase asks of it is under way when it is killed."""
    host, pid = scene.worker(fault.target)
    host.kill(pid, signal.SIGSTOP)
    scene.while_it_goes_on()
    host.kill(pid, signal.SIGKILL)
    return {fault.target: 1}


def kill_worker_and_successor(scene: Scene, fault: Fault) -> Losses:
    """The one that takes its place is killed while it boots."""
    before = scene.workers(fault.target)
    kill_worker(scene, fault)
    scene.run.lead_until(lambda: bool(set(scene.workers(fault.target)) - set(before)))
    host, pid = scene.random.choice(sorted(set(scene.workers(fault.target)) - set(before), key=lambda each: each[1]))
    host.kill(pid, signal.SIGKILL)
    scene.wait(KNOWN_S)
    return {fault.target: 2}


def kill_driver(scene: Scene, fault: Fault) -> Losses:
    if scene.random.random() < 0.5:
        scene.while_it_goes_on()
    scene.run.kill()
    assert scene.run.status == -signal.SIGKILL, f"status {scene.run.status} of a driver that was to be killed"
    scene.run.resume()
    return NOTHING


def kill_raylet(scene: Scene, fault: Fault) -> Losses:
    """Of a host with such a worker; a supervisor starts it again."""
    host, _ = scene.worker(fault.target)
    lost, node_ids = scene.one_of_each_on(host), scene.node_ids(host)
    for pid in host.pids("raylet"):
        host.kill(pid, signal.SIGKILL)
    scene.run.release()
    scene.run.lead_until(lambda: not host.has_ray)
    host.start_raylet()
    scene.await_end_of(node_ids)
    return lost


# ---------------------------------------------------------------------------------------------------------------- links


def cut_shortly(scene: Scene, fault: Fault) -> Losses:
    """It may be over before anything had to pass; the run says nothing of it."""
    host, _ = scene.worker(fault.target)
    host.cut()
    scene.run.release()
    scene.run.listen(scene.random.uniform(*SHORT_CUT_S))
    host.mend()
    return NOTHING


def cut_for_long(scene: Scene, fault: Fault) -> Losses:
    """Until Ray has given the host up; its Ray finds that out when the cable is mended, and ends."""
    host, _ = scene.worker(fault.target)
    lost, node_ids = scene.one_of_each_on(host), scene.node_ids(host)
    host.cut()
    scene.run.release()
    scene.await_end_of(node_ids)
    host.mend()
    scene.run.lead_until(lambda: not host.has_ray)
    host.start_raylet()
    return lost


def slow(scene: Scene, fault: Fault) -> Losses:
    """For this step and the next."""
    host, _ = scene.worker(fault.target)
    host.slow(SLOW_MS, SLOW_KBIT)
    scene.run.lead_past(scene.run.last_step + 1)
    host.mend()
    return NOTHING


# -------------------------------------------------------------------------------------------------------------- storage


def fill_disk(scene: Scene, fault: Fault) -> Losses:
    """The run ends with one message; with room it goes on."""
    taken = fill(scene.hosts.shared)
    scene.run.await_end()
    taken.unlink()
    said = scene.run.last_words
    assert scene.run.status == 1, f"status {scene.run.status} of a run whose disk was full:\n{said}"
    assert "No space left on device" in said and "Traceback" not in said, said
    scene.run.resume()
    return NOTHING


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES: dict[str, Callable[[Path], None]] = {"byte flipped": flip_byte, "file cut": cut_file, "file lost": Path.unlink}


def damage_checkpoint(scene: Scene, fault: Fault) -> Losses:
    """Of the newest checkpoint one file, which is not as it was written when the driver has died and comes back."""
    scene.run.kill()
    newest = Left(scene.run.folder).last_checkpoint
    DAMAGES[fault.target](scene.random.choice(sorted(path for path in newest.iterdir() if path.name != STATE_FILE)))
    scene.run.resume()
    return NOTHING


STRIKE: dict[str, Callable[[Scene, Fault], Losses]] = {
    "worker killed": kill_worker,
    "worker and its successor killed": kill_worker_and_successor,
    "driver killed": kill_driver,
    "raylet killed": kill_raylet,
    "link cut shortly": cut_shortly,
    "link cut for long": cut_for_long,
    "link slow": slow,
    "disk full": fill_disk,
    "checkpoint damaged": damage_checkpoint,
}


def strike(scene: Scene, fault: Fault, step: int) -> tuple[str, ...]:
    """The fault in its phase of that step, and what the run says until the step after it has been done.

    Before that step the run waits until the fault is all there: until Ray knows of a host that it is dead.

    Raises:
        AssertionError: the run has not said that it lost what the fault took from it; one that nobody noticed has hit
            nothing.
    """
    scene.run.lead_to(Moment(step, fault.phase))
    scene.run.forget_from(step)
    num_said = len(scene.run.said)
    lost = STRIKE[fault.kind](scene, fault)
    scene.run.lead_past(step + 1)
    end = time.monotonic() + FELT_S
    scene.run.lead_until(lambda: not unsaid(lost, scene.run.said[num_said:]) or time.monotonic() > end)
    said = tuple(scene.run.said[num_said:])
    assert not unsaid(lost, said), f"the run said nothing of the loss of {unsaid(lost, said)}; it said {said}"
    if fault.kind == "checkpoint damaged":
        assert any("is damaged" in message and "going back to" in message for message in said), said
    return said


def unsaid(lost: Losses, said: Sequence[str]) -> Losses:
    """Those that no message names."""
    named = Counter(message.partition("-")[0] for message in said if "; it is replaced" in message)
    return {role: count - named[role] for role, count in lost.items() if named[role] < count}


def make_whole(scene: Scene) -> None:
    """Wait until all hosts are in the cluster again."""
    for host in scene.hosts.all[1:]:
        host.await_ray()
    assert wait_until(scene.is_whole, WHOLE_S), f"Ray has {scene.console.alive()}"
