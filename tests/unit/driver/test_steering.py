"""A run that is running is looked at and changed from Python, on a real Ray."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from plumbob.cluster.calls import wait_until
from plumbob.cluster.connection import start_or_join
from plumbob.cluster.control_actor import ControlClient
from plumbob.configs.resolved_copy import RESOLVED_FILE
from plumbob.configs.settings.workers import ClusterSettings
from plumbob.console.cli import main
from plumbob.console.commands.live import watch
from plumbob.core.errors import NotRunningError, UserError
from plumbob.driver import steering
from plumbob.driver.run_folder.connection_file import ConnectionFile
from plumbob.driver.run_folder.folder import STATUS_FILE, SUMMARY_FILE
from plumbob.driver.steering import RunState
from tests.support.run_statuses import TWO_ROLLOUT_WORKERS, at_step

pytestmark = pytest.mark.usefixtures("one_cpu")

TIMEOUT_S = 120.0
STATUS = at_step(TWO_ROLLOUT_WORKERS, 7)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Folder of a run that has begun."""
    (tmp_path / RESOLVED_FILE).touch()
    return tmp_path


@pytest.fixture
def client(run: Path) -> Iterator[ControlClient]:
    """Of that run, which continues as `steered` and has reported."""
    client = ControlClient("steered", print)
    with ConnectionFile(run, "steered", ClusterSettings()):
        client.exchange(lambda: STATUS, True)
        assert wait_until(lambda: steering.status(run) == RunState(None, STATUS), TIMEOUT_S)
        yield client
    client.close()


def test_a_run_is_steered_by_its_folder_and_by_its_name(run: Path, client: ControlClient) -> None:
    assert steering.scale(run, 3) == 2
    assert wait_until(lambda: client.exchange(lambda: STATUS, True).num_rollout_workers == 3, TIMEOUT_S)
    with pytest.raises(UserError, match="--rollout-workers 0: expected 1 or more"):
        steering.scale(str(run), 0)
    with pytest.raises(UserError, match=r"10\.9\.9\.9: no host of this cluster"):
        steering.leave(run, "10.9.9.9")
    assert steering.status("steered", "auto").status == STATUS
    steering.save(run)
    assert wait_until(lambda: client.exchange(lambda: STATUS, True).save, TIMEOUT_S)
    assert not client.exchange(lambda: STATUS, True).stop
    steering.stop("steered", "auto")
    assert wait_until(lambda: client.exchange(lambda: STATUS, True).stop, TIMEOUT_S)


def test_a_run_is_watched_by_its_name_until_it_is_gone(
    client: ControlClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`plumbob watch NAME --address ADDRESS`: what its control actor says, asked again and again."""
    looks = 0

    def next_look(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            client.exchange(lambda: at_step(TWO_ROLLOUT_WORKERS, 8), True)
            assert wait_until(lambda: known_step() == 8, TIMEOUT_S)
        else:
            client.close()

    def known_step() -> int | None:
        status = steering.status("steered", "auto").status
        return None if status is None or status.step is None else status.step.step

    monkeypatch.setattr(watch, "time", SimpleNamespace(sleep=next_look))
    assert main(["watch", "steered", "--address", "auto", "--json"]) == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [found["step"] for found in objects if found["event"] == "step"] == [7, 8]
    assert objects[-1]["event"] == "run_ended" and objects[-1]["how"] == "ended"


def test_a_run_that_is_over_is_known_by_what_it_wrote(run: Path) -> None:
    with pytest.raises(NotRunningError, match="this run is not running; `plumbob resume"):
        steering.status(run)
    (run / STATUS_FILE).write_text(json.dumps(STATUS.as_dict()))
    found = steering.status(run)
    assert not found.is_running and found.status == STATUS
    assert found.why_not is not None and found.why_not.startswith(f"{run}: this run is not running")
    # What scripts read: flat, as it always was.
    printed = found.as_dict()
    assert (printed["running"], printed["why"], printed["step"]) == (False, found.why_not, 7)
    (run / SUMMARY_FILE).write_text("{}\n")
    finished = steering.status(run).why_not
    assert finished is not None and finished.startswith(f"{run}: this run is finished") and "resume" not in finished
    (run / SUMMARY_FILE).unlink()
    (run / STATUS_FILE).write_text('{"step": 9}\n')
    with pytest.raises(UserError, match=r"status\.json: expected the status of a run as JSON: KeyError"):
        steering.status(run)
    with pytest.raises(NotRunningError, match="this run is not running"):
        steering.stop(run)


def test_a_process_is_on_one_ray_at_a_time() -> None:
    with pytest.raises(
        UserError, match=r"cluster\.address=local: this process is on the Ray cluster at .* already; use"
    ):
        start_or_join(ClusterSettings())
