"""What refuses a run that is sent to a cluster, and what comes back of it. Ray's own client over real HTTP."""

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import ray
import yaml
from ray._raylet import Config  # type: ignore[attr-defined]

import plumbob.cluster.launchers.dashboard
import plumbob.cluster.launchers.ray_job
from plumbob.cluster.launchers.job_files import CONFIG_FILE
from plumbob.cluster.launchers.ray_job import Jobs
from plumbob.console.cli import main
from plumbob.core.errors import RunFailed, UserError
from tests.support.ray_dashboard import JOB, Dashboard

SFT = ["sft", "policy.model=/models/base", "data.demonstrations=/data/d.jsonl"]


@pytest.fixture(autouse=True)
def no_other_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing of the user's Ray, nor of one that this process joined before, decides what is sent."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    Config.initialize("")  # Ray reads the mode once.
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    forget_token()
    yield
    monkeypatch.undo()
    Config.initialize("")
    forget_token()


def forget_token() -> None:
    """Ray's client keeps the token that it read first, where a command reads one."""
    plumbob.cluster.launchers.dashboard.AuthenticationTokenLoader.instance().reset_cache()


# ------------------------------------------------------------------------------------------------------ what refuses it


@contextmanager
def http_server(body: bytes) -> Iterator[str]:
    """Answers every request with this."""

    class FixedReply(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), FixedReply) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(30)


@pytest.mark.parametrize("address", ["HEAD:8265", "ray://h:10001", "http://h", "auto", "http://h:many", "http://:8265"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(UserError, match=r"expected the head's dashboard, such as http://HEAD:8265$"):
        Jobs(address)


def test_nothing_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(UserError, match=rf"^--address {address}: nothing answers there"):
            Jobs(address)


def test_what_takes_the_connection_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plumbob.cluster.launchers.dashboard, "REQUEST_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UserError, match=rf"^--address {address}: what answers there is no Ray dashboard"):
            Jobs(address)


@pytest.mark.parametrize("body", [b"<html>a page</html>", b'{"version": "4"}', b"[]"])
def test_another_service_answers(body: bytes) -> None:
    with http_server(body) as address, pytest.raises(UserError, match="no Ray dashboard"):
        Jobs(address)


def test_another_version_of_ray_answers() -> None:
    with Dashboard(version="2.9.3") as other, pytest.raises(UserError) as refused:
        Jobs(other.address)
    assert f"the cluster runs Ray 2.9.3, and this is Ray {ray.__version__}; submit from" in str(refused.value)
    major, minor, *_ = ray.__version__.split(".")
    with Dashboard(version=f"{major}.{minor}.99") as patched:
        Jobs(patched.address)


def test_an_address_in_the_environment_does_not_replace_the_one_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    with Dashboard() as dashboard:
        assert Jobs(dashboard.address + "/").address == dashboard.address
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:1"


def test_the_token_is_sent_without_ray_being_in_token_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    with Dashboard() as dashboard:
        Jobs(dashboard.address)
        monkeypatch.setenv("RAY_AUTH_TOKEN", "abc")
        forget_token()
        Jobs(dashboard.address)
    assert dashboard.tokens == {None, "Bearer abc"}


def test_a_token_file_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    forget_token()
    with pytest.raises(UserError, match=r"^RAY_AUTH_TOKEN_PATH: "):
        Jobs("http://127.0.0.1:1")


# ------------------------------------------------------------------------------------------------------ what comes back


def submit(dashboard: Dashboard, *options: str) -> int:
    return main(["submit", *SFT, "storage.path=/shared/runs", "name=sent", "--address", dashboard.address, *options])


def test_a_job_is_sent_and_followed_to_its_end(capfd: pytest.CaptureFixture[str]) -> None:
    with Dashboard(streams=(("sft: begins\n", "sft: done\n"),)) as dashboard:
        assert submit(dashboard) == 0
    assert dashboard.packages == [[CONFIG_FILE]]
    assert dashboard.handed_over["entrypoint"] == "plumbob run run.yaml"
    assert "entrypoint_num_cpus" not in dashboard.handed_over  # The driver takes nothing of what workers share.
    said = capfd.readouterr().out
    assert f"job {JOB}: run sent is on its way to /shared/runs/sent" in said
    assert f"job logs --follow --address {dashboard.address} {JOB}" in said
    assert said.endswith("sft: begins\nsft: done\n")


def test_nobody_waits_where_it_was_not_asked(capfd: pytest.CaptureFixture[str]) -> None:
    with Dashboard(streams=(("sft: begins\n",),)) as dashboard:
        assert submit(dashboard, "--no-wait", "--json") == 0
        expected = {"event": "job_submitted", "job": JOB, "address": dashboard.address, "run": "sent"}
    assert yaml.safe_load(capfd.readouterr().out) == expected
    assert dashboard.handed_over["entrypoint"] == "plumbob run run.yaml --json"


def test_a_run_that_failed_is_gone_on_with_from_outside(capfd: pytest.CaptureFixture[str]) -> None:
    with Dashboard(streams=(("sft: step 3\n",),)) as dashboard:
        assert submit(dashboard, "--resume") == 0
        assert dashboard.packages == [[CONFIG_FILE]]
        assert dashboard.handed_over["entrypoint"] == "plumbob run run.yaml --resume"
        nameless = ["submit", *SFT, "storage.path=/shared/runs", "--address", dashboard.address, "--resume"]
        assert main(nameless) == 2
    said = capfd.readouterr()
    assert said.out.endswith("sft: step 3\n")
    assert said.err == "plumbob: --resume: expected the name of the run that may have begun: give name=\n"


def test_a_script_reads_objects_only(capfd: pytest.CaptureFixture[str]) -> None:
    pieces = ("Running entrypoint\n{", '"event": "stage', '_began"}\nplumbob: a mis', "take")
    with Dashboard(streams=(pieces,)) as dashboard:
        dashboard.status, dashboard.exit_code = "FAILED", 2
        assert submit(dashboard, "--json") == 2
    said = capfd.readouterr()
    assert [json.loads(line)["event"] for line in said.out.splitlines()] == ["job_submitted", "stage_began"]
    assert said.err == "Running entrypoint\nplumbob: a mistake\n"


@pytest.mark.parametrize(
    ("status", "exit_code", "expected", "message"),
    [
        ("FAILED", 1, 1, ""),
        ("FAILED", 2, 2, ""),
        ("FAILED", 75, 75, ""),
        ("FAILED", 127, 2, "plumbob: the head's Ray finds no command plumbob: start Ray in Plumbob's environment, or"),
        ("FAILED", -9, 1, f"plumbob: the run failed: job {JOB} ended: what Ray says"),
        ("FAILED", None, 1, f"plumbob: the run failed: job {JOB} ended: what Ray says"),
        ("STOPPED", None, 1, f"plumbob: the run failed: job {JOB} was stopped: what Ray says"),
    ],
)
def test_the_exit_status_of_the_run_is_that_of_the_command(
    status: str, exit_code: int | None, expected: int, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with Dashboard(streams=(("plumbob: its message\n",),)) as dashboard:
        dashboard.status, dashboard.exit_code = status, exit_code
        assert submit(dashboard) == expected
    said = capfd.readouterr()
    assert said.out.endswith("plumbob: its message\n")
    assert said.err.startswith(message) and bool(said.err) == bool(message)


def test_a_stream_that_breaks_is_opened_again_and_no_line_is_lost_or_doubled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plumbob.cluster.launchers.ray_job, "CHECK_S", 0.05)
    # Each opening begins with the first line again, and is cut elsewhere: within a line, before it, and never.
    streams = (("one\ntw",), (), ("one\n", "two\nthr"), ("one\n", "two\nthree\n", "four\n"))
    written: list[str] = []
    with Dashboard(streams=streams) as dashboard:
        ended = Jobs(dashboard.address).follow(JOB, written.append)
    assert "".join(written) == "one\ntwo\nthree\nfour\n"
    assert ended.succeeded


def test_last_words_that_come_after_the_end_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plumbob.cluster.launchers.ray_job, "CHECK_S", 1.0)
    written: list[str] = []
    with Dashboard(streams=(("one\n",),)) as dashboard:
        dashboard.last_words = "two\n"
        assert Jobs(dashboard.address).follow(JOB, written.append).succeeded
    assert written == ["one\n", "two\n"]


def test_a_dashboard_that_is_gone_ends_the_following_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plumbob.cluster.launchers.ray_job, "CHECK_S", 0.05)
    monkeypatch.setattr(plumbob.cluster.launchers.ray_job, "PATIENCE_S", 0.2)
    with Dashboard() as dashboard:
        jobs = Jobs(dashboard.address)
    with pytest.raises(RunFailed, match=rf"has not answered for 0.2 s, and job {JOB} may still be running"):
        jobs.follow(JOB, print)


def test_an_interrupt_leaves_the_job_alone_and_says_how_to_end_it(capfd: pytest.CaptureFixture[str]) -> None:
    # Python leaves it as it finds it, and what was started in a shell's background finds it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Dashboard(streams=(("sft: begins\n",), ())) as dashboard:
        dashboard.sent = lambda: os.kill(os.getpid(), signal.SIGINT)
        assert submit(dashboard) == 130
    said = capfd.readouterr().err
    assert "the job keeps running" in said and f"job stop --address {dashboard.address} {JOB}" in said
