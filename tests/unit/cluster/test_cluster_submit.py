"""What is sent to a cluster, what refuses to take it, and what comes back. Ray's own client over real HTTP."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import ray
import yaml

import cluster.submit
from cluster.health import wait_until
from cluster.job import CONFIG_FILE, as_yaml, entrypoint, for_cluster, source_files, write_job
from cluster.submit import Jobs
from configs.errors import RunFailed, UserError
from configs.load import load_run, preset_names, write_resolved
from configs.schema import AnyRun
from console.cli import main
from tests.dashboard import JOB, Dashboard
from tests.tiny_policy import write_policy

ROOT = Path(__file__).parents[3]
TOKEN = "b" * 64
SFT = ["sft", "policy.model=/models/base", "data.demonstrations=/data/d.jsonl"]


@pytest.fixture(autouse=True)
def no_other_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cluster, token or home of whoever runs the tests."""
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    forget_token()


def forget_token() -> None:
    """Ray's client keeps the token that it read first, where a command reads one."""
    cluster.submit.AuthenticationTokenLoader.instance().reset_cache()


def sft(storage: Path | str = "/shared/runs") -> AnyRun:
    return load_run(SFT[0], [*SFT[1:], f"storage.path={storage}", "name=sent"])


# -------------------------------------------------------------------------------------------------------- what is sent


def test_the_sent_configuration_joins_the_cluster_and_names_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    run = load_run("sft", ["policy.model=base", "data.demonstrations=d.jsonl", "storage.path=/shared/runs"])
    run = run.model_copy(update={"cluster": run.cluster.model_copy(update={"num_cpus": 2, "wait_s": 20.0})})
    sent = for_cluster(run)
    assert (sent.cluster.address, sent.cluster.num_cpus, sent.cluster.wait_s) == ("auto", None, 20.0)
    assert for_cluster(run, wait_s=300).cluster.wait_s == 300
    written = yaml.safe_load(as_yaml(sent))
    assert written["policy"]["model"] == str(tmp_path / "base")
    assert written["data"]["demonstrations"] == str(tmp_path / "d.jsonl")


@pytest.mark.parametrize("path", ["runs", "~/runs", "./shared"])
def test_a_storage_path_that_only_one_host_would_know_is_refused(path: str) -> None:
    with pytest.raises(UserError, match=rf"^storage\.path={path}: .*absolute path that every host can read"):
        for_cluster(sft(path))


@pytest.mark.parametrize("preset", preset_names())
def test_the_sent_file_is_read_back_as_the_same_run(preset: str, tmp_path: Path) -> None:
    run = load_run(preset, [*paths_of(preset), "name=a b", "storage.path=/shared/runs", "seed=7"])
    sent = for_cluster(run)
    write_job(sent, tmp_path, with_source=False)
    assert [path.name for path in tmp_path.iterdir()] == [CONFIG_FILE]
    assert load_run(str(tmp_path / CONFIG_FILE)) == sent


def paths_of(preset: str) -> list[str]:
    """What the preset leaves to the user."""
    values = yaml.safe_load((ROOT / "configs" / f"{preset}.yaml").read_text())
    policy, reward = "policy.model=/models/policy", "reward.model=/models/reward"
    kinds = {
        "pretrain": ["data.text=/data/t"],
        "pretrain-encoder": ["data.text=/data/t"],
        "sft": [policy, "data.demonstrations=/data/d"],
        "reward": [reward, "data.pairs=/data/p"],
        "dpo": [policy, "data.pairs=/data/p"],
        "kto": [policy, "data.labelled=/data/l"],
        "ppo": [policy, reward, "data.prompts=/data/p"],
        "pipeline": [] if preset == "toy" else ["data.pairs=/data/p"],
    }
    return kinds[values["kind"]]


def test_the_source_is_whole_and_nothing_but_the_source(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for path in ("configs/load.py", "configs/toy.yaml", "console/verify/table.py", "data/__pycache__/a.pyc"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    for path in ("runs/a/resolved.json", "runs/run.py", ".venv/lib/x.py", "data/pairs.jsonl.gz", "tests/test_a.py"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    found = {path.relative_to(root).as_posix() for path in source_files(root)}
    assert found == {"configs/load.py", "configs/toy.yaml", "console/verify/table.py"}
    # A folder that holds it runs the program with nothing else of this checkout.
    job = tmp_path / "job"
    job.mkdir()
    write_job(sft(), job, with_source=True)
    command = [sys.executable, "-P", "-c", "import console.cli; print(console.cli.__file__)"]
    done = subprocess.run(
        command, cwd=job, env={"PYTHONPATH": str(job)}, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == str(job / "console/cli.py")
    assert {path.name for path in job.rglob("*.yaml")} == {CONFIG_FILE, *(f"{name}.yaml" for name in preset_names())}


def test_the_command_that_the_head_starts() -> None:
    assert entrypoint(with_source=False, as_json=False) == "plumbob run run.yaml"
    assert entrypoint(with_source=True, as_json=True) == "python -m console.cli run run.yaml --json"


# ------------------------------------------------------------------------------------------------------ what refuses it


@contextmanager
def http_server(body: bytes) -> Iterator[str]:
    """Answers every request with this."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
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
    monkeypatch.setattr(cluster.submit, "REQUEST_S", 0.5)
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


# ----------------------------------------------------------------------------------------------------- what comes back


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
    assert f"ray job logs --follow --address {dashboard.address} {JOB}" in said
    assert said.endswith("sft: begins\nsft: done\n")


def test_nobody_waits_where_it_was_not_asked(capfd: pytest.CaptureFixture[str]) -> None:
    with Dashboard(streams=(("sft: begins\n",),)) as dashboard:
        assert submit(dashboard, "--no-wait", "--json") == 0
        expected = {"event": "job_submitted", "job": JOB, "address": dashboard.address, "run": "sent"}
    assert yaml.safe_load(capfd.readouterr().out) == expected
    assert dashboard.handed_over["entrypoint"] == "plumbob run run.yaml --json"


@pytest.mark.parametrize(
    ("status", "exit_code", "expected", "message"),
    [
        ("FAILED", 1, 1, ""),
        ("FAILED", 2, 2, ""),
        ("FAILED", 127, 2, "plumbob: the head's Ray finds no command plumbob: start Ray in Plumbob's environment, or"),
        ("FAILED", -9, 1, f"plumbob: the run failed: job {JOB} failed: what Ray says"),
        ("FAILED", None, 1, f"plumbob: the run failed: job {JOB} failed: what Ray says"),
        ("STOPPED", None, 1, f"plumbob: the run failed: job {JOB} stopped: what Ray says"),
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
    monkeypatch.setattr(cluster.submit, "CHECK_S", 0.05)
    # Each opening begins with the first line again, and is cut elsewhere: within a line, before it, and never.
    streams = (("one\ntw",), (), ("one\n", "two\nthr"), ("one\n", "two\nthree\n", "four\n"))
    written: list[str] = []
    with Dashboard(streams=streams) as dashboard:
        ended = Jobs(dashboard.address).follow(JOB, written.append)
    assert "".join(written) == "one\ntwo\nthree\nfour\n"
    assert ended.status.value == "SUCCEEDED"


def test_a_dashboard_that_is_gone_ends_the_following_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.submit, "CHECK_S", 0.05)
    monkeypatch.setattr(cluster.submit, "PATIENCE_S", 0.2)
    with Dashboard() as dashboard:
        jobs = Jobs(dashboard.address)
    with pytest.raises(RunFailed, match=rf"has not answered for 0.2 s, and job {JOB} may go on"):
        jobs.follow(JOB, print)


def test_an_interrupt_leaves_the_job_alone_and_says_how_to_end_it(capfd: pytest.CaptureFixture[str]) -> None:
    with Dashboard(streams=(("sft: begins\n",), ())) as dashboard:
        dashboard.sent = lambda: os.kill(os.getpid(), signal.SIGINT)
        assert submit(dashboard) == 130
    said = capfd.readouterr().err
    assert "the job goes on" in said and f"ray job stop --address {dashboard.address} {JOB}" in said


# --------------------------------------------------------------------------------------------------------- a real head


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def environment(token: str | None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if token is not None:
            patch.setenv("RAY_AUTH_TOKEN", token)
        forget_token()
        yield
    forget_token()


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """A Ray with a dashboard that asks for TOKEN, in a folder, a home and on ports of its own."""
    # A short path: Ray makes sockets in it, whose names have an end.
    with tempfile.TemporaryDirectory(prefix="plumbob-", dir="/tmp") as folder:
        programs = Path(sys.executable).parent
        own = {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "HOME": folder,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        port = free_port()
        ports = {"port": 0, "ray-client-server-port": free_port(), "dashboard-agent-listen-port": 0}
        options = {**ports, "dashboard-port": port, "temp-dir": folder, "num-cpus": 1, "node-ip-address": "127.0.0.1"}
        command = [
            programs / "ray",
            "start",
            "--head",
            "--block",
            *(f"--{key}={value}" for key, value in options.items()),
        ]
        with (Path(folder) / "log").open("wb") as log:
            ray_start = subprocess.Popen(command, env=own, stdout=log, stderr=log, start_new_session=True)
        try:
            address = f"http://127.0.0.1:{port}"
            assert wait_until(lambda: ray_start.poll() is not None or answers(address), 120.0)
            assert ray_start.poll() is None, (Path(folder) / "log").read_text()
            yield address
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
    expected = f"{head}: the cluster {message}; set RAY_AUTH_TOKEN to the one that its hosts were started with"
    assert str(refused.value) == expected


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


def test_a_name_that_is_taken_on_the_cluster(head: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_resolved(sft(tmp_path), tmp_path / "sent")
    with environment(TOKEN):
        status = main(["submit", *SFT, f"storage.path={tmp_path}", "name=sent", "--address", head])
    said = capfd.readouterr().out
    assert status == 2, said
    assert f"plumbob: {tmp_path / 'sent'}: there is a run already" in said
