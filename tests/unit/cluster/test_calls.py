"""Waits on a real Ray: order, errors and deaths."""

import time
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import OutOfMemoryError, RayError, WorkerCrashedError

import plumbob.cluster.calls
from plumbob.cluster.calls import (
    BOOT_TIMEOUT,
    LOG_BYTES,
    Actor,
    Call,
    gather,
    gather_ranks,
    last_lines,
    result_of,
    wait_ignoring_results,
    wait_until,
)
from plumbob.cluster.failures import LearnersLost, WorkerFailed, WorkerLost
from plumbob.core.disk_errors import StorageFailed
from plumbob.core.errors import NotFinite, RunFailed, UserError
from tests.support.ray_publish_prover import Prover
from tests.support.ray_worker import BlockingWorker

TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def workers(one_cpu: None, tmp_path_factory: pytest.TempPathFactory) -> list[Actor]:
    return [start(f"worker-{number}", tmp_path_factory.mktemp("logs") / f"{number}.log") for number in range(2)]


def start(name: str, log: Path) -> Actor:
    return Actor(name, ray.remote(num_cpus=0, max_concurrency=4)(BlockingWorker).remote(log), log)


def test_results_in_the_order_of_the_calls(workers: list[Actor]) -> None:
    calls = [Call(actor, actor.handle.double.remote([number])) for number, actor in enumerate(workers * 2)]
    assert gather(calls, "doubling", TIMEOUT_S) == [[0], [2], [4], [6]]


@pytest.mark.parametrize(
    "kind, error, message, rows",
    [("user", UserError, "row 3", None), ("run", NotFinite, "loss is nan", (4, 7))],
)
def test_what_a_worker_raises_for_a_person_comes_out_as_it_is(
    workers: list[Actor], kind: str, error: type[Exception], message: str, rows: tuple[int, ...] | None
) -> None:
    with pytest.raises(error, match=message) as caught:
        gather([Call(workers[0], workers[0].handle.fail.remote(kind))], "checking", TIMEOUT_S)
    assert type(caught.value) is error
    assert getattr(caught.value, "rows", None) == rows


def test_any_other_error_names_the_worker_with_the_end_of_its_log(workers: list[Actor]) -> None:
    workers[0].log.write_text("last words\n")
    with pytest.raises(
        WorkerFailed, match=r"^worker-0 failed while checking: KeyError\('something unexpected'\)\n.*\n  last words$"
    ):
        gather([Call(workers[0], workers[0].handle.fail.remote("other"))], "checking", TIMEOUT_S)


def test_a_full_disk_is_told_as_such(workers: list[Actor]) -> None:
    with pytest.raises(StorageFailed) as failed:
        gather([Call(workers[0], workers[0].handle.fail.remote("disk"))], "saving", TIMEOUT_S)
    assert str(failed.value) == "worker-0 failed while saving: No space left on device"


def test_a_worker_that_cannot_begin_is_not_taken_for_a_lost_one(one_cpu: None, tmp_path: Path) -> None:
    actor = Actor("rollout-0", ray.remote(num_cpus=0)(Prover).remote("no path"), tmp_path / "0.log")
    with pytest.raises(WorkerFailed, match=r"rollout-0 failed as it began: AttributeError: .*\n.*0\.log"):
        gather([Call(actor, actor.handle.load.remote(None))], "loading", TIMEOUT_S)


def test_the_first_error_ends_the_wait_at_once(one_cpu: None, tmp_path: Path) -> None:
    holding, failing = start("holding", tmp_path / "a.log"), start("failing", tmp_path / "b.log")
    held = holding.handle.hold.remote()
    with pytest.raises(UserError, match="row 3"):
        gather([Call(holding, held), Call(failing, failing.handle.fail.remote("user"))], "checking", TIMEOUT_S)
    # The first worker is waiting still: nothing has come of its call.
    assert ray.wait([held], timeout=0)[0] == []
    holding.handle.release.remote()
    assert ray.get(held, timeout=TIMEOUT_S) == "held"


def test_a_dead_worker_is_named_with_the_end_of_its_log(one_cpu: None, tmp_path: Path) -> None:
    holding, dying = start("learner-0", tmp_path / "0.log"), start("learner-1", tmp_path / "1.log")
    calls = [Call(holding, holding.handle.hold.remote()), Call(dying, dying.handle.die.remote())]
    with pytest.raises(WorkerLost) as caught:
        gather(calls, "updating", TIMEOUT_S)
    message = str(caught.value)
    assert message.startswith("learner-1 died while updating: ")
    # The last 12 of 17 lines.
    assert "line 16" in message and "line 5\n" in message and "line 4\n" not in message


def test_of_ranks_the_death_is_told_that_makes_another_fail(
    one_cpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plumbob.cluster.calls, "DEATH_KNOWN_S", TIMEOUT_S)
    failing, dying = start("learner-0", tmp_path / "0.log"), start("learner-1", tmp_path / "1.log")
    calls = [Call(failing, failing.handle.fail.remote("other")), Call(dying, dying.handle.hold.remote())]
    ray.wait([calls[0].result], timeout=TIMEOUT_S)
    dying.handle.die.remote()
    with pytest.raises(LearnersLost, match=r"^learner-1 died while updating: ") as caught:
        gather_ranks(calls, "updating", TIMEOUT_S)
    assert "line 16" in str(caught.value)


def test_of_ranks_that_all_live_the_failure_is_told(
    one_cpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plumbob.cluster.calls, "DEATH_KNOWN_S", 0.01)
    failing, holding = start("learner-0", tmp_path / "0.log"), start("learner-1", tmp_path / "1.log")
    calls = [Call(failing, failing.handle.fail.remote("other")), Call(holding, holding.handle.hold.remote())]
    with pytest.raises(LearnersLost, match=r"^learner-0 failed while updating: KeyError"):
        gather_ranks(calls, "updating", TIMEOUT_S)


@pytest.mark.parametrize("first", [WorkerFailed("learner-0 failed"), WorkerLost("learner-1 died", "learner-1")])
def test_of_ranks_the_one_is_known_that_was_killed_for_memory(
    monkeypatch: pytest.MonkeyPatch, first: RunFailed
) -> None:
    ends = iter([first, WorkerLost("learner-1 died", "learner-1")])

    def fail(call: Call, doing: str) -> None:
        raise next(ends)

    monkeypatch.setattr(plumbob.cluster.calls, "result_of", fail)
    monkeypatch.setattr(ray, "wait", lambda results, num_returns, timeout: (results[:1], results[1:]))
    calls = [Call(Actor(f"learner-{rank}", None, Path()), rank) for rank in range(2)]
    with pytest.raises(LearnersLost, match="learner-1 died") as caught:
        gather_ranks(calls, "updating", TIMEOUT_S)
    assert caught.value.oom_killed == "learner-1"


def test_a_wait_ends_and_says_what_it_waited_for(one_cpu: None, tmp_path: Path) -> None:
    holding = start("rollout-0", tmp_path / "0.log")
    holding.log.write_text("last words\n")
    late = r"^rollout-0: still sampling after 0 s \(cluster\.call_timeout_s\)\nthe end of .*0\.log:\n  last words$"
    with pytest.raises(WorkerLost, match=late):
        gather([Call(holding, holding.handle.hold.remote())], "sampling", 0.01)


def test_a_wait_for_a_start_names_its_own_bound(one_cpu: None, tmp_path: Path) -> None:
    holding = start("learner-0", tmp_path / "0.log")
    with pytest.raises(RunFailed, match=r"still starting after 0 s \(cluster\.boot_timeout_s\)"):
        gather([Call(holding, holding.handle.hold.remote())], "starting", 0.01, BOOT_TIMEOUT)


@pytest.mark.parametrize("error", [WorkerCrashedError(), OutOfMemoryError("\x1b[36mtoo little memory\x1b[0m")])
def test_whatever_ray_says_of_a_worker_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RayError
) -> None:
    log = tmp_path / "0.log"
    log.write_text("\x1b[1;31mlast words\x1b[0m\n")

    def fail(_: Any) -> None:
        raise error

    monkeypatch.setattr(ray, "get", fail)
    with pytest.raises(WorkerLost, match=r"learner-0 died while updating: .*\n.*\n  last words") as caught:
        result_of(Call(Actor("learner-0", None, log), None), "updating")
    assert "\x1b" not in str(caught.value)
    assert caught.value.oom_killed == ("learner-0" if isinstance(error, OutOfMemoryError) else None)


def test_a_crash_of_an_earlier_worker_of_that_name_is_not_this_ones(one_cpu: None, tmp_path: Path) -> None:
    """A resumed run counts its workers anew, and appends to their logs."""
    log = tmp_path / "0.log"
    log.write_text("*** SIGILL received at time=1 on cpu 0 ***\n")
    made = ray.remote(num_cpus=0)(BlockingWorker).remote(tmp_path / "another.log")
    actor = Actor("rollout-0", made, log, log_start=log.stat().st_size)
    with pytest.raises(WorkerLost, match=r"rollout-0 died while doubling: The actor died") as lost:
        gather([Call(actor, actor.handle.die.remote())], "doubling", TIMEOUT_S)
    assert lost.value.crash is None


def test_a_package_that_a_host_lacks_is_named(one_cpu: None, tmp_path: Path) -> None:
    asked = start("rollout-0", tmp_path / "0.log")
    with pytest.raises(
        WorkerFailed,
        match=r"^rollout-0 failed while opening: ModuleNotFound.*a_package_that.*; has its host the packages",
    ):
        gather([Call(asked, asked.handle.fail.remote("package"))], "opening", TIMEOUT_S)


def test_settling_takes_failures_and_ends(one_cpu: None, tmp_path: Path) -> None:
    worker = start("rollout-0", tmp_path / "0.log")
    wait_ignoring_results([worker.handle.double.remote([1]), worker.handle.fail.remote("other")], TIMEOUT_S)
    held = worker.handle.hold.remote()
    wait_ignoring_results([held], 0.01)
    assert ray.wait([held], timeout=0)[0] == []


def test_only_the_end_of_a_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    log.write_text("x" * 2**20 + "\nlast words\n")
    assert len(last_lines(log)) < 2 * LOG_BYTES
    assert last_lines(log).endswith("\n  last words")


def test_a_log_that_is_not_there(tmp_path: Path) -> None:
    assert "cannot be read" in last_lines(tmp_path / "none.log")


def test_waiting_until_something_is_so() -> None:
    responses = iter([False, False, True])
    assert wait_until(lambda: next(responses), 60, poll_s=0.001)
    began = time.monotonic()
    assert not wait_until(lambda: False, 0.01, poll_s=0.001)
    assert time.monotonic() - began >= 0.01
