"""Hosts on one machine, joined by a network, each with a Ray of its own, all of which can fail as real ones do.

Needs root and the commands `ip`, `unshare`, `nsenter` and `setpriv`.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import psutil

from plumbob.cluster.calls import wait_until
from tests.multihost.namespaces import HOME, STOP_S, NamespacedCommand, Namespaces
from tests.multihost.switch import Switch

NETWORK = "10.77.0"
"""Of the hosts' addresses, which are on no other network."""

PORT, DASHBOARD_PORT = 6379, 8265
SOURCE = Path(__file__).parents[2]
PYTHON = Path(sys.executable)
PLUMBOB = str(PYTHON.with_name("plumbob"))
BOOT_S = 120.0
END_S = 60.0

CHECK_PERIOD_S = 1.0
CHECK_TIMEOUT_S = 1.0
CHECK_FAILURES = 3
PATIENCE_S = CHECK_FAILURES * (CHECK_PERIOD_S + CHECK_TIMEOUT_S)
"""How long a host may be out of reach before Ray calls it dead: so many checks in a row without a response."""

OBJECT_STORE_BYTES = 200 * 2**20

RAY_ENV = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": str(int(CHECK_PERIOD_S * 1000)),
    "RAY_health_check_timeout_ms": str(int(CHECK_TIMEOUT_S * 1000)),
    "RAY_health_check_failure_threshold": str(CHECK_FAILURES),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
}


def missing() -> str | None:
    """What this machine lacks to be several hosts."""
    if os.geteuid() != 0:
        return "several hosts on one machine need root"
    absent = [tool for tool in ("ip", "unshare", "nsenter", "setpriv") if shutil.which(tool) is None]
    if absent:
        return f"several hosts on one machine need the command {absent[0]}"
    bridge = ["ip", "link", "add", "name", "bridge", "type", "bridge"]
    tried = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", *bridge], capture_output=True, text=True)
    reason = tried.stderr.strip()
    return f"several hosts on one machine need namespaces and bridges: {reason}" if tried.returncode else None


class SimulatedHost:
    """A host with an address, private folders and perhaps a Ray. Its commands are given the cluster's token."""

    def __init__(self, name: str, address: str, namespaces: Namespaces, switch: Switch, token: str, log: Path) -> None:
        self.name, self.address = name, address
        self.log = log
        """What its `ray start` prints, on the machine."""
        self._namespaces, self._switch, self._token = namespaces, switch, token
        self._start_ray: list[str] = []
        self._ray: NamespacedCommand | None = None

    # -------------------------------------------------------------------------------------------------------- commands

    def environment(self) -> dict[str, str]:
        """What commands on the host find set: nothing of the machine's Ray and of its user."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTEST_"))}
        own = {"HOME": HOME, "PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
        own["PATH"] = f"{PYTHON.parent}{os.pathsep}{os.environ['PATH']}"
        return inherited | RAY_ENV | {"RAY_AUTH_TOKEN": self._token} | own

    def popen(self, command: Sequence[str], env: Mapping[str, str] | None = None, **pipes: Any) -> NamespacedCommand:
        """Start a command in a working folder of the host's own. `env` is all that is set, else `environment()`."""
        return self._namespaces.popen(command, self.environment() if env is None else env, **pipes)

    def run(
        self, command: Sequence[str], timeout_s: float, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; one that takes longer is killed and subprocess.TimeoutExpired raised."""
        process = self.popen(command, env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate(timeout=STOP_S)
            raise subprocess.TimeoutExpired(list(command), timeout_s, out, err) from None
        return subprocess.CompletedProcess(list(command), process.returncode, out, err)

    # ------------------------------------------------------------------------------------------------------------- Ray

    def start_ray(self, head: str | None, num_cpus: int, with_dashboard: bool = False) -> None:
        """Begin to start Ray: a head, or a node that joins the head at `HOST:PORT`. `await_ray` waits for it."""
        dashboard = [f"--include-dashboard={with_dashboard}", f"--dashboard-host={self.address}"]
        place = [f"--address={head}"] if head else ["--head", f"--port={PORT}", *dashboard]
        self._start_ray = [
            *(str(PYTHON.with_name("ray")), "start", "--block", "--disable-usage-stats"),
            *(*place, f"--node-ip-address={self.address}", f"--num-cpus={num_cpus}"),
            *(f"--object-store-memory={OBJECT_STORE_BYTES}", f"--temp-dir=/tmp/ray-{self.name}"),
        ]
        self.start_raylet()

    def start_raylet(self) -> None:
        """Start Ray once more, as a supervisor of the host would."""
        assert self._ray is None or self._ray.poll() is not None, f"Ray runs on {self.name}"
        with self.log.open("w") as log:
            self._ray = self.popen(self._start_ray, stdout=log, stderr=subprocess.STDOUT)

    def await_ray(self) -> None:
        """Raises RuntimeError when Ray does not start; says what it printed."""
        if not self._is_started_or_over() or not self.has_ray:
            raise RuntimeError(f"no Ray on {self.name}:\n{self.log.read_text()}")

    def _is_started_or_over(self) -> bool:
        return wait_until(lambda: "Ray runtime started." in self.log.read_text() or not self.has_ray, BOOT_S)

    @property
    def has_ray(self) -> bool:
        """Whether `ray start` is running: it ends when one of its own processes does."""
        return self._ray is not None and self._ray.poll() is None

    def kill_raylet(self) -> None:
        """Kill the raylet and wait until all of Ray on the host has ended."""
        for pid in self.pids("raylet"):
            self.kill(pid, signal.SIGKILL)
        self.await_end_of_ray()

    def power_off(self) -> None:
        """End all that runs on it."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):  # It had seen the end of one before it.
                process.kill()
        self.await_end_of_ray()

    def await_end_of_ray(self) -> None:
        """Wait for the end of a Ray that was killed, or that will find itself declared dead."""
        assert self._ray is not None
        self._ray.wait(END_S)

    # ------------------------------------------------------------------------------------------------------- processes

    def processes(self) -> list[psutil.Process]:
        """All that run on the host."""
        return list(self._namespaces.processes())

    def pids(self, title: str) -> list[int]:
        """The host's processes of that title, such as `raylet` or `ray::RolloutWorker`, as the machine numbers them."""
        return [process.pid for process in self.processes() if titled(process, title)]

    def kill(self, pid: int, number: int) -> None:
        """Send a signal to a process of this host. Raises ValueError for any other."""
        if pid not in (process.pid for process in self.processes()):
            raise ValueError(f"{pid} is no process of {self.name}")
        os.kill(pid, number)

    # ------------------------------------------------------------------------------------------------------------ link

    def cut(self) -> None:
        """Unplug its cable."""
        self._switch.cut(self.name)

    def slow(self, delay_ms: float, rate_kbit: float) -> None:
        """Every frame to it or from it takes `delay_ms` more, and `rate_kbit` is all that passes each way."""
        self._switch.slow(self.name, delay_ms, rate_kbit)

    def mend(self) -> None:
        """The cable plugged in, and as fast as it was."""
        self._switch.mend(self.name)

    def put_back(self, alive: Callable[[], Sequence[str]]) -> None:
        """The cable whole and Ray running, if it had one, once a Ray that was declared dead has ended.

        Args:
            alive: addresses of the hosts that the head takes for alive.
        """
        self.mend()
        if not self._start_ray:
            return
        self._is_started_or_over()
        if self.address not in alive() or not self.pids("raylet"):
            self.await_end_of_ray()
            self.start_raylet()
        self.await_ray()
        if not wait_until(lambda: self.address in alive(), BOOT_S):
            raise RuntimeError(f"{self.name} has a Ray that is not in the cluster; there are {alive()}")


class Hosts:
    """Hosts `host1`, `host2` and so on, as a context that leaves nothing behind; the first is the head of their Ray.

    `spare` is one more on the same network, which is no host of that Ray.

    Args:
        shared: the one folder that all hosts, and the machine, can write; at the same path on all of them.
        logs: where what `ray start` prints goes, on the machine.
    """

    def __init__(self, count: int, shared: Path, logs: Path) -> None:
        self.shared = shared
        self.token = secrets.token_hex(32)
        self._count, self._logs = count, logs
        self._made = ExitStack()
        self.all: list[SimulatedHost] = []

    def __enter__(self) -> Self:
        with ExitStack() as made:
            switch = Switch(made.enter_context(self._namespaces("switch")))
            self.all = [self._join(made, switch, f"host{number}", number) for number in range(1, self._count + 1)]
            self.spare = self._join(made, switch, "spare", self._count + 1)
            self._made = made.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._made.close()

    def _join(self, made: ExitStack, switch: Switch, name: str, number: int) -> SimulatedHost:
        namespaces = made.enter_context(self._namespaces(name))
        address = f"{NETWORK}.{number}"
        switch.join(namespaces, address)
        return SimulatedHost(name, address, namespaces, switch, self.token, self._logs / f"{name}-ray.log")

    def _namespaces(self, name: str) -> Namespaces:
        return Namespaces(name, self.shared, [SOURCE, Path(sys.prefix), Path(sys.base_prefix)])

    @property
    def head(self) -> SimulatedHost:
        return self.all[0]

    @property
    def ray_address(self) -> str:
        return f"{self.head.address}:{PORT}"

    @property
    def dashboard(self) -> str:
        return f"http://{self.head.address}:{DASHBOARD_PORT}"

    def start_ray(self, num_cpus: int, with_dashboard: bool) -> None:
        """One Ray over all hosts, each with so many CPUs."""
        self.head.start_ray(None, num_cpus, with_dashboard)
        self.head.await_ray()
        for host in self.all[1:]:
            host.start_ray(self.ray_address, num_cpus)
        for host in self.all[1:]:
            host.await_ray()

    def start_again(self) -> None:
        """Every Ray, as they were started, after all have ended."""
        for host in self.all:
            host.start_raylet()
            host.await_ray()

    def put_back(self, alive: Callable[[], Sequence[str]]) -> None:
        """Every cable whole and every Ray running and in the cluster; the argument is that of `Host.put_back`."""
        for host in self.all:
            host.put_back(alive)


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; nothing of one that has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def titled(process: psutil.Process, title: str) -> bool:
    words = words_of(process)
    return bool(words) and (words[0].startswith(title) or Path(words[0]).name == title)
