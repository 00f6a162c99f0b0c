"""The kinds of faults: what each does to a run that waits at a breakpoint, and to its hosts."""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from plumbob.cluster.calls import wait_until
from plumbob.trainers.learner.checkpoint import STATE_FILE
from tests.multihost.faults.stepped_run import Breakpoint
from tests.multihost.faults.system_under_test import NOTHING, TITLES, Fault, Losses, SystemUnderTest
from tests.multihost.hosts import PATIENCE_S
from tests.multihost.memory import out_of_memory
from tests.support.full_disk import fill
from tests.support.small_run import Left

WHOLE_S = 120.0
KNOWN_S = 1.0
"""What Ray may take to tell the driver that a worker died."""
TOGETHER_S = 0.1
"""Within which Ray kills all of those whom it has chosen."""
FELT_S = 30.0
"""What a run that samples asynchronously, also while it is held, may take to say that it lost a worker."""

SHORT_CUT_S = (PATIENCE_S / 6, PATIENCE_S / 3)
SLOW_MS, SLOW_KBIT = 20.0, 4000.0


# ---------------------------------------------------------------------------------------------------------------- kills


def kill_worker(system: SystemUnderTest, fault: Fault) -> Losses:
    """It is stopped before the phase begins, so that what the phase asks of it is under way when it is killed."""
    host, pid = system.worker(fault.target)
    host.kill(pid, signal.SIGSTOP)
    system.enter_phase()
    host.kill(pid, signal.SIGKILL)
    return {fault.target: 1}


def kill_worker_and_successor(system: SystemUnderTest, fault: Fault) -> Losses:
    """The one that takes its place is killed while it boots."""
    before = system.workers(fault.target)
    kill_worker(system, fault)
    system.run.run_until(lambda: bool(set(system.workers(fault.target)) - set(before)))
    host, pid = system.random.choice(sorted(set(system.workers(fault.target)) - set(before), key=lambda each: each[1]))
    host.kill(pid, signal.SIGKILL)
    system.wait(KNOWN_S)
    return {fault.target: 2}


def kill_driver(system: SystemUnderTest, fault: Fault) -> Losses:
    if system.random.random() < 0.5:
        system.enter_phase()
    system.run.kill()
    assert system.run.status == -signal.SIGKILL, f"status {system.run.status} of a driver that was to be killed"
    system.run.resume()
    return NOTHING


def kill_raylet(system: SystemUnderTest, fault: Fault) -> Losses:
    """Of a host with such a worker; a supervisor starts it again."""
    host, _ = system.worker(fault.target)
    lost, node_ids = system.one_of_each_role_on(host), system.node_ids(host)
    for pid in host.pids("raylet"):
        host.kill(pid, signal.SIGKILL)
    system.run.release()
    system.run.run_until(lambda: not host.has_ray)
    host.start_raylet()
    system.wait_until_dead(node_ids)
    return lost


@contextmanager
def out_of_memory_under(system: SystemUnderTest, role: str) -> Iterator[Losses]:
    """A host with such a worker is out of memory until the block ends.

    It begins when Ray's monitor there has killed the worker, and gives all whom that chose.
    """
    host, pid = system.worker(role)
    before = {each: host.pids(title) for each, title in TITLES.items()}
    host.kill(pid, signal.SIGSTOP)
    system.enter_phase()
    with out_of_memory(host):
        system.run.run_until(lambda: pid not in host.pids(TITLES[role]))
        system.wait(TOGETHER_S)
        killed = {each: len(set(pids).difference(host.pids(TITLES[each]))) for each, pids in before.items()}
        killed["learner"] = min(killed["learner"], 1)  # Ranks are lost together.
        yield {each: number for each, number in killed.items() if number}


def take_memory(system: SystemUnderTest, fault: Fault) -> Losses:
    """The next worker may start there."""
    with out_of_memory_under(system, fault.target) as lost:
        return lost


def take_memory_for_long(system: SystemUnderTest, fault: Fault) -> Losses:
    """For this step and the next, in which whoever starts there is killed too."""
    with out_of_memory_under(system, fault.target) as lost:
        system.run.run_past(system.run.last_step + 1)
        return lost


# ---------------------------------------------------------------------------------------------------------------- links


def cut_shortly(system: SystemUnderTest, fault: Fault) -> Losses:
    """It may be over before anything had to pass; the run says nothing of it."""
    host, _ = system.worker(fault.target)
    host.cut()
    system.run.release()
    system.run.listen(system.random.uniform(*SHORT_CUT_S))
    host.mend()
    return NOTHING


def cut_for_long(system: SystemUnderTest, fault: Fault) -> Losses:
    """Until Ray has given the host up; its Ray finds that out when the cable is mended, and ends."""
    host, _ = system.worker(fault.target)
    lost, node_ids = system.one_of_each_role_on(host), system.node_ids(host)
    host.cut()
    system.run.release()
    system.wait_until_dead(node_ids)
    host.mend()
    system.run.run_until(lambda: not host.has_ray)
    host.start_raylet()
    return lost


def slow(system: SystemUnderTest, fault: Fault) -> Losses:
    """For this step and the next."""
    host, _ = system.worker(fault.target)
    host.slow(SLOW_MS, SLOW_KBIT)
    system.run.run_past(system.run.last_step + 1)
    host.mend()
    return NOTHING


# -------------------------------------------------------------------------------------------------------------- storage


def fill_disk(system: SystemUnderTest, fault: Fault) -> Losses:
    """The run ends with one message; with room it continues."""
    taken = fill(system.hosts.shared)
    system.run.await_end()
    taken.unlink()
    said = system.run.last_words
    assert system.run.status == 1, f"status {system.run.status} of a run whose disk was full:\n{said}"
    assert "No space left on device" in said and "Traceback" not in said, said
    system.run.resume()
    return NOTHING


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES: dict[str, Callable[[Path], None]] = {"byte flipped": flip_byte, "file cut": cut_file, "file lost": Path.unlink}


def damage_checkpoint(system: SystemUnderTest, fault: Fault) -> Losses:
    """Of the newest checkpoint one file, which is not as it was written when the driver has died and comes back."""
    system.run.kill()
    newest = Left(system.run.folder).last_checkpoint
    DAMAGES[fault.target](system.random.choice(sorted(path for path in newest.iterdir() if path.name != STATE_FILE)))
    system.run.resume()
    return NOTHING


STRIKE: dict[str, Callable[[SystemUnderTest, Fault], Losses]] = {
    "worker killed": kill_worker,
    "worker and its successor killed": kill_worker_and_successor,
    "driver killed": kill_driver,
    "out of memory": take_memory,
    "out of memory for long": take_memory_for_long,
    "raylet killed": kill_raylet,
    "link cut shortly": cut_shortly,
    "link cut for long": cut_for_long,
    "link slow": slow,
    "disk full": fill_disk,
    "checkpoint damaged": damage_checkpoint,
}


def inject(system: SystemUnderTest, fault: Fault, step: int) -> tuple[str, ...]:
    """The fault in its phase of that step, and what the run says until the step after it has been done.

    Before that step the run waits until the fault is all there: until Ray knows of a host that it is dead.

    Raises:
        AssertionError: the run has not said that it lost what the fault took from it; one that nobody noticed has hit
            nothing.
    """
    system.run.run_to(Breakpoint(step, fault.phase))
    system.run.forget_from(step)
    num_said = len(system.run.said)
    lost = STRIKE[fault.kind](system, fault)
    system.run.run_past(step + 1)
    end = time.monotonic() + FELT_S
    system.run.run_until(lambda: not unsaid(lost, system.run.said[num_said:]) or time.monotonic() > end)
    said = tuple(system.run.said[num_said:])
    check_said(fault, lost, said)
    return said


def check_said(fault: Fault, lost: Losses, said: Sequence[str]) -> None:
    """That the run has said what the fault took from it and, where it can know that, by what. Raises AssertionError."""
    assert not unsaid(lost, said), f"the run said nothing of the loss of {unsaid(lost, said)}; it said {said}"
    if fault.kind.startswith("out of memory"):
        of_memory = [message for message in said if "low on memory" in message]
        assert lost and not unsaid(lost, of_memory), f"lost for want of memory: {lost}; the run said {said}"
    if fault.kind == "checkpoint damaged":
        assert any("is damaged" in message and "going back to" in message for message in said), said


def unsaid(lost: Losses, said: Sequence[str]) -> Losses:
    """Those that no message names."""
    named = Counter(message.partition("-")[0] for message in said if "; it is replaced" in message)
    return {role: count - named[role] for role, count in lost.items() if named[role] < count}


def restore_system(system: SystemUnderTest) -> None:
    """Wait until all hosts are in the cluster again."""
    for host in system.hosts.all[1:]:
        host.await_ray()
    assert wait_until(system.is_whole, WHOLE_S), f"Ray has {system.console.alive()}"
