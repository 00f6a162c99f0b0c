"""Who may join a Ray, and what is said to those who may not."""

import secrets
import subprocess

import psutil

from plumbob.cluster.calls import wait_until
from plumbob.cluster.connection import PROBE_S
from tests.multihost import echo
from tests.multihost.cables import serving
from tests.multihost.hosts import PLUMBOB, PYTHON, Hosts, SimulatedHost, words_of
from tests.support.small_run import settings

START_S = 60.0
"""For a command to start and read its input on a busy machine."""


def start_or_join(host: SimulatedHost, address: str) -> subprocess.CompletedProcess[str]:
    """`cluster.connection` in a process of its own on a host; prints what it refuses with, else the number of hosts."""
    script = f"""
import ray
from plumbob.cluster.connection import start_or_join
from plumbob.core.errors import UserError
from plumbob.configs.settings.workers import ClusterSettings
try:
    start_or_join(ClusterSettings(address={address!r}))
    print(len(ray.nodes()))
except UserError as error:
    print(error)
"""
    return host.run([str(PYTHON), "-c", script], START_S)


def without_token(host: SimulatedHost) -> dict[str, str]:
    return {name: value for name, value in host.environment().items() if not name.startswith("RAY_AUTH")}


def test_a_run_without_the_token_is_refused(hosts: Hosts, inputs: dict[str, object]) -> None:
    host = hosts.all[1]
    address = {"cluster.address": hosts.ray_address, "storage.path": hosts.shared / "refused"}
    given = {
        "asks for a token": without_token(host),
        "does not take the token that it was given": without_token(host) | {"RAY_AUTH_TOKEN": secrets.token_hex(32)},
    }
    runs = {}
    for number, (said, env) in enumerate(given.items()):  # Of two names: both are at work in their folders at once.
        command = [PLUMBOB, "run", "ppo", *settings(inputs, address, {"name": f"refused-{number}"})]
        runs[said] = host.popen(command, env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for said, process in runs.items():
        out, err = process.communicate(timeout=START_S + PROBE_S)
        assert process.returncode == 2, out + err
        assert f"cluster.address={hosts.ray_address}: the Ray cluster there {said}; set RAY_AUTH_TOKEN to" in err
        assert "Traceback" not in out + err
    assert not list((hosts.shared / "refused").glob("*"))


def test_a_machine_without_ray_is_told_so(hosts: Hosts) -> None:
    said = start_or_join(hosts.spare, hosts.ray_address).stdout
    assert said.startswith(
        f"cluster.address={hosts.ray_address}: this machine is no host of the Ray cluster there; run"
    )
    assert start_or_join(hosts.spare, "auto").stdout.startswith("cluster.address=auto: cannot be joined: ")


def test_a_client_asks_again_whose_server_was_lost(hosts: Hosts) -> None:
    """As the head's memory limit ends it, say: the first is killed as soon as it is there."""

    def servers() -> set[psutil.Process]:
        return {one for one in hosts.head.processes() if "--mode=specific-server" in words_of(one)}

    before = servers()
    script = f"""
import ray
from plumbob.cluster.connection import joined_briefly
with joined_briefly("ray://{hosts.head.address}:10001"):
    print(sum(node["Alive"] for node in ray.nodes()))
"""
    joining = hosts.spare.popen([str(PYTHON), "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert wait_until(lambda: bool(servers() - before), START_S, poll_s=0.05)
    for lost in servers() - before:
        lost.kill()
    out, err = joining.communicate(timeout=5 * START_S)  # Ray looks for the lost one for half a minute and more.
    assert out.strip() == str(len(hosts.all)), err


def test_what_listens_may_be_something_else(hosts: Hosts) -> None:
    address = f"{hosts.spare.address}:{echo.PORT}"
    with serving(hosts.spare):
        said = start_or_join(hosts.head, address).stdout
    assert said.startswith(f"cluster.address={address}: what listens there does not answer as Ray does")
