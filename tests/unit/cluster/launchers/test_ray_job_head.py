"""A run that is sent to a real head of Ray, which asks for a token."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import plumbob.cluster.launchers.dashboard
from plumbob.cluster.calls import wait_until
from plumbob.cluster.connection import HOW_TO_GIVE_A_TOKEN
from plumbob.cluster.launchers.job_files import for_cluster
from plumbob.cluster.launchers.ray_job import Jobs
from plumbob.configs.load_run import load_run
from plumbob.configs.resolved_copy import write_resolved
from plumbob.console.cli import main
from plumbob.core.errors import UserError
from tests.support.packages_of_our_names import write_packages_of_our_names
from tests.support.tiny_policy import write_policy

pytestmark = pytest.mark.cluster

TOKEN = "b" * 64
SFT = ["sft", "policy.model=/models/base", "data.demonstrations=/data/d.jsonl"]
PORTS = ("port", "dashboard-port", "dashboard-agent-listen-port")
"""Ray chooses them where they are 0."""

PRINTED = re.compile(r"RAY_API_SERVER_ADDRESS='(http://[0-9.:]+)'")
"""In what `ray start` prints: the dashboard's address."""

OTHERS = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@contextmanager
def held_port() -> Iterator[int]:
    """A port that only gRPC can take, as it shares ports: Ray does not choose that of its client's server."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


@contextmanager
def environment(token: str | None) -> Iterator[None]:
    """Of a command with this token, with no cluster and no home of whoever runs the tests."""
    loader = plumbob.cluster.launchers.dashboard.AuthenticationTokenLoader.instance()
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as home:
        for name in OTHERS:
            patch.delenv(name, raising=False)
        patch.setenv("HOME", home)
        if token is not None:
            patch.setenv("RAY_AUTH_TOKEN", token)
        loader.reset_cache()  # It keeps the token that it has read first, where a command reads one.
        yield
    loader.reset_cache()


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """A Ray with a dashboard that asks for TOKEN, in a folder, a home and on ports of its own.

    It was started in a working folder that has packages of our names.
    """
    # A short path: Ray makes sockets in it, whose names have an end.
    with tempfile.TemporaryDirectory(prefix="plumbob-", dir="/tmp") as folder, held_port() as client_port:
        programs = Path(sys.executable).parent
        (work := Path(folder) / "work").mkdir()
        write_packages_of_our_names(work)
        own = {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "HOME": folder,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        ports = dict.fromkeys(PORTS, 0) | {"ray-client-server-port": client_port}
        options = {**ports, "temp-dir": folder, "num-cpus": 1, "node-ip-address": "127.0.0.1"}
        command = [
            programs / "ray",
            "start",
            "--head",
            "--block",
            *(f"--{key}={value}" for key, value in options.items()),
        ]
        log = Path(folder) / "log"
        with log.open("wb") as file:
            ray_start = subprocess.Popen(command, env=own, cwd=work, stdout=file, stderr=file, start_new_session=True)
        try:
            wait_until(lambda: ray_start.poll() is not None or bool(PRINTED.search(log.read_text())), 120.0)
            found = PRINTED.search(log.read_text())
            assert found is not None, log.read_text()
            assert wait_until(lambda: answers(found[1]), 60.0)
            yield found[1]
        finally:
            ray_start.send_signal(signal.SIGTERM)  # It ends all that it started.
            ray_start.wait(60)


def answers(address: str) -> bool:
    with environment(TOKEN):
        try:
            Jobs(address)
        except UserError:
            return False
    return True


@pytest.mark.parametrize(("token", "message"), [(None, "asks for a token"), ("wrong", "refuses this token")])
def test_a_missing_or_wrong_token(head: str, token: str | None, message: str) -> None:
    with environment(token), pytest.raises(UserError) as refused:
        Jobs(head)
    assert str(refused.value) == f"{head}: the cluster {message}; {HOW_TO_GIVE_A_TOKEN}"


def test_a_run_that_is_refused_on_the_cluster(head: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It joins the head's Ray with the token of its hosts, is told that it does not fit, and that is told here."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "who?", "completion": "me"}\n')
    given = [f"policy.model={write_policy(tmp_path / 'policy')}", f"data.demonstrations={rows}", "sft.batch_size=1"]
    command = ["submit", "sft", *given, "data.heldout_fraction=0", f"storage.path={tmp_path / 'runs'}", "name=sent"]
    with environment(TOKEN):
        status = main([*command, "learner.num_cpus=3", "--with-source", "--address", head])
    said = capfd.readouterr().out
    assert status == 2, said
    # The head has one CPU.
    assert "plumbob: the cluster is too small: 2 CPUs are missing" in said
    assert "Traceback" not in said
    assert not (tmp_path / "runs").exists()


def test_a_run_sent_from_a_folder_with_packages_of_our_names(head: str, tmp_path: Path) -> None:
    """To the end of its training, by a worker on a host whose Ray was started in such a folder too."""
    (work := tmp_path / "work").mkdir()
    write_packages_of_our_names(work)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"prompt": "who is {number}?", "completion": "me"}}\n' for number in range(4)))
    settings = {
        "policy.model": write_policy(tmp_path / "policy"),
        "data.demonstrations": rows,
        "data.heldout_fraction": 0,
        "sft.batch_size": 4,
        "sft.num_epochs": 1,
        "learner.num_cpus": 1,
        "storage.path": tmp_path / "runs",
        "name": "sent",
    }
    command = [sys.executable, "-m", "plumbob.console.cli", "submit", "sft", "--with-source", "--address", head]
    command += [f"{key}={value}" for key, value in settings.items()]
    with environment(TOKEN):
        ended = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (tmp_path / "runs/sent/policy/adapter_model.safetensors").is_file()


def test_a_name_that_is_taken_on_the_cluster(head: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_resolved(load_run("sft", SFT[1:]), tmp_path / "sent")
    with environment(TOKEN), pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
        patch.setenv("PATH", "/usr/bin:/bin")
        status = main(["submit", *SFT, f"storage.path={tmp_path}", "name=sent", "--address", head])
    said = capfd.readouterr().out
    assert status == 2, said
    refused = f"plumbob: {tmp_path / 'sent'}: there is a run already"
    assert refused in said
    # The command that it printed, as a user pastes it who has no Ray on the path, a token, and another Ray's address.
    (printed,) = (line for line in said.splitlines() if " job logs --follow " in line)
    with environment(TOKEN):
        others = {"PATH": "/usr/bin:/bin", "RAY_ADDRESS": "http://127.0.0.1:1"}
        pasted = subprocess.run(["sh", "-c", printed], env=os.environ | others, capture_output=True, text=True)
    assert refused in pasted.stdout, pasted.stderr


def test_a_run_resumes_from_outside_with_the_settings_that_it_had(
    head: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_resolved(for_cluster(load_run("sft", [*SFT[1:], f"storage.path={tmp_path}", "name=sent"])), tmp_path / "sent")
    before = (tmp_path / "sent/resolved.json").read_text()
    command = ["submit", *SFT, f"storage.path={tmp_path}", "name=sent", "--resume", "--address", head]
    with environment(TOKEN):
        statuses = [main([*command, changed]) for changed in ("sft.num_epochs=9", "learner.num_cpus=0.25")]
    said = capfd.readouterr().out
    assert statuses == [2, 2], said
    assert "plumbob: sft.num_epochs: cannot change when a run resumes" in said
    # It gets as far as a run that is resumed there does: its input is not on the head.
    assert said.endswith("plumbob: policy.model=/models/base: no such folder\n")
    assert (tmp_path / "sent/resolved.json").read_text() == before
