"""The hosts are as apart as real ones, fail as real ones do, and leave nothing behind."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from plumbob.cluster.calls import wait_until
from tests.multihost.cables import serving, visit, visitor
from tests.multihost.driver import RayConsole
from tests.multihost.hosts import NETWORK, PATIENCE_S, SOURCE, Hosts
from tests.multihost.memory import out_of_memory
from tests.support.full_disk import SMALL_DISK

ALL = [f"{NETWORK}.{number}" for number in (1, 2, 3)]
SEEN_S = PATIENCE_S + 30
STARTED_S = 20.0


# --------------------------------------------------------------------------------------------------- apart and together


def test_every_host_reaches_every_other(hosts: Hosts) -> None:
    for server in hosts.all:
        with serving(server):
            assert all(visit(guest, server) for guest in hosts.all if guest is not server)


def test_only_the_shared_folder_is_shared(hosts: Hosts) -> None:
    first, second, _ = hosts.all
    shared = hosts.shared / "note"
    for private in ("/tmp/note", "/dev/shm/note", "~/note", "runs/note"):
        script = f"mkdir -p runs && echo mine > {private} && cat {private}"
        assert first.run(["sh", "-c", script], timeout_s=10).stdout == "mine\n"
        assert "No such file" in second.run(["sh", "-c", f"cat {private}"], timeout_s=10).stderr
    assert not any(Path(path).exists() for path in ("/tmp/note", "/dev/shm/note"))
    first.run(["sh", "-c", f"echo ours > {shared}"], timeout_s=10)
    assert second.run(["cat", str(shared)], timeout_s=10).stdout == shared.read_text() == "ours\n"


def test_no_host_writes_what_is_the_machines(hosts: Hosts) -> None:
    """Such as the user's own Ray folder: what Ray writes for itself goes to folders of the host."""
    for folder in (Path.home() / ".ray", Path.home(), SOURCE, Path("/var/tmp")):
        assert hosts.head.run(["sh", "-c", f"mkdir -p {folder} && touch {folder}/note"], timeout_s=10).returncode != 0
    assert hosts.head.run(["sh", "-c", f"ls -d /tmp/ray-{hosts.head.name}"], timeout_s=10).returncode == 0
    assert not Path(f"/tmp/ray-{hosts.head.name}").exists()


# ------------------------------------------------------------------------------------------------------ links and Ray


def test_a_slow_cable_is_slow_until_it_is_mended(hosts: Hosts) -> None:
    guest, server, _ = hosts.all
    with serving(server):
        server.slow(delay_ms=200, rate_kbit=2000)
        slow = visit(guest, server, num_bytes=50_000)
        server.mend()
        fast = visit(guest, server, num_bytes=50_000)
    # 200 ms there and 200 ms back, and 50 kB at 250 kB/s.
    assert slow is not None and slow[0] >= 0.4 and slow[1] >= 0.6
    assert fast is not None and fast[0] < slow[0] / 2 and fast[1] < slow[1] / 2


def test_a_short_cut_is_survived(hosts: Hosts, console: RayConsole) -> None:
    head, far, _ = hosts.all
    assert console.place(far.address) == (far.name, 1)
    with serving(far), visitor(head, far) as set_out:
        far.cut()
        console.begin_visit(far.address)
        assert set_out() is None
        far.mend()
        assert console.end_visit() == (far.name, 2)
    assert console.alive() == ALL


def test_a_long_cut_is_a_death_until_the_raylet_is_started_again(hosts: Hosts, console: RayConsole) -> None:
    far = hosts.all[2]
    console.place(far.address)
    began = time.monotonic()
    far.cut()
    assert wait_until(lambda: console.alive() == ALL[:2], SEEN_S)
    assert time.monotonic() - began > PATIENCE_S / 2
    assert console.visit(far.address) == "ActorDiedError"
    far.mend()
    far.await_end_of_ray()
    far.start_raylet()
    far.await_ray()
    assert wait_until(lambda: console.alive() == ALL, SEEN_S)
    assert console.place(far.address) == (far.name, 1)


def test_a_killed_raylet_takes_its_host_alone(hosts: Hosts, console: RayConsole) -> None:
    near, far = hosts.all[1:]
    console.place(near.address)
    console.place(far.address)
    far.kill_raylet()
    assert wait_until(lambda: console.alive() == ALL[:2], SEEN_S)
    assert console.visit(far.address) == "ActorDiedError"
    assert console.visit(near.address) == (near.name, 2)
    hosts.put_back(console.alive)
    assert console.alive() == ALL


def test_what_was_declared_dead_is_put_back(hosts: Hosts, console: RayConsole) -> None:
    """Its Ray runs on until the cable is mended, and then ends by itself."""
    far = hosts.all[2]
    far.cut()
    assert wait_until(lambda: console.alive() == ALL[:2], SEEN_S)
    assert far.has_ray
    hosts.put_back(console.alive)
    assert console.alive() == ALL
    assert console.place(far.address) == (far.name, 1)


def test_a_killed_worker_dies_alone(hosts: Hosts, console: RayConsole) -> None:
    near, far = hosts.all[1:]
    console.place(near.address)
    console.place(far.address)
    # Those of other tests end by and by.
    assert wait_until(lambda: len(far.pids("ray::Guest")) == 1, SEEN_S)
    (pid,) = far.pids("ray::Guest")
    with pytest.raises(ValueError, match="no process of host2"):
        near.kill(pid, signal.SIGKILL)
    far.kill(pid, signal.SIGKILL)
    assert console.visit(far.address) == "ActorDiedError"
    assert console.visit(near.address) == (near.name, 2)
    assert console.alive() == ALL
    assert far.has_ray


def test_a_host_without_memory_loses_its_workers_alone(hosts: Hosts, console: RayConsole) -> None:
    near, far = hosts.all[1:]
    console.place(near.address)
    console.place(far.address)
    before = left()
    with out_of_memory(far):
        assert wait_until(lambda: not far.pids("ray::Guest"), SEEN_S)
        assert left() == before
        assert "MemAvailable: 1 kB" in far.run(["cat", "/proc/meminfo"], timeout_s=10).stdout
        assert "MemAvailable: 1 kB" not in Path("/proc/meminfo").read_text()
    assert "MemAvailable: 1 kB" not in far.run(["cat", "/proc/meminfo"], timeout_s=10).stdout
    assert console.visit(far.address) == "OutOfMemoryError"
    assert console.visit(near.address) == (near.name, 2)
    assert console.place(far.address) == (far.name, 1)
    assert console.alive() == ALL


# -------------------------------------------------------------------------------------------------------- nothing left


def left() -> dict[str, object]:
    """What a harness could leave on the machine."""
    listed = {
        what: subprocess.run(["ip", "-o", *what.split()], capture_output=True, text=True).stdout.splitlines()
        for what in ("link", "netns", "address")
    }
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    # Tests that run beside these mount disks of their own.
    return listed | {"mounts": [line for line in mounts if not line.startswith(f"{SMALL_DISK} ")]}


def test_a_second_set_of_hosts_leaves_nothing(hosts: Hosts, tmp_path: Path) -> None:
    before = left()
    with Hosts(2, tmp_path, tmp_path) as others:
        assert left() == before
        sleeper = others.head.popen(["sleep", "1000"])
        others.all[1].slow(delay_ms=1, rate_kbit=1000)
        assert wait_until(lambda: bool(others.head.pids("sleep")), STARTED_S)
        (pid,) = others.head.pids("sleep")
        assert hosts.head.pids("sleep") == []
    assert sleeper.returncode is not None
    assert not psutil.pid_exists(pid)
    assert left() == before


def test_a_set_of_hosts_that_cannot_be_made_leaves_nothing(hosts: Hosts, tmp_path: Path) -> None:
    before, children = left(), set(psutil.Process().children(recursive=True))
    with (
        pytest.raises(RuntimeError, match=r"no namespaces for switch: .*absent"),
        Hosts(2, tmp_path / "absent", tmp_path),
    ):
        pass
    assert (left(), set(psutil.Process().children(recursive=True))) == (before, children)


def test_hosts_end_with_a_test_that_is_killed(hosts: Hosts, tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from tests.multihost.hosts import Hosts
with Hosts(1, Path({str(tmp_path)!r}), Path({str(tmp_path)!r})) as hosts:
    hosts.head.popen(["sleep", "1000"])
    while not hosts.head.pids("sleep"): pass
    print(*hosts.head.pids("sleep"), flush=True)
    input()
"""
    test = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=SOURCE
    )
    assert test.stdout is not None
    pid = int(test.stdout.readline())
    test.kill()
    test.communicate()
    assert wait_until(lambda: not psutil.pid_exists(pid), STARTED_S)
