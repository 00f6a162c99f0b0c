"""What is told before a Ray is started or joined: that it will be too small, or that nobody answers."""

import os
import socket
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
import ray

import plumbob.cluster.admission
import plumbob.cluster.session
from plumbob.cluster import nodes
from plumbob.cluster.admission import check_local
from plumbob.cluster.connection import joined_briefly, start_or_join
from plumbob.cluster.control_actor import ControlClient
from plumbob.cluster.fleet import reservations
from plumbob.cluster.fleet.reservations import Reservations
from plumbob.cluster.resources import Host, ResourceAmount, ResourceNeed
from plumbob.cluster.session import Session
from plumbob.configs.runs import SftRun
from plumbob.configs.settings.data import DemonstrationDataSettings
from plumbob.configs.settings.models import PolicySettings
from plumbob.configs.settings.training import SftSettings
from plumbob.configs.settings.workers import ClusterSettings, LearnerSettings, StorageSettings
from plumbob.core.errors import NotRunningError, UserError
from plumbob.driver.api import run
from tests.support.recording_listener import Watching
from tests.support.tiny_policy import write_policy

NEEDS = (ResourceNeed("learner", "learner.num_workers", 3, 1.0, 0.0, 0.0, spread=False),)


def test_a_private_ray_that_would_be_too_small() -> None:
    check_local(ClusterSettings(num_cpus=3), NEEDS, {})
    # 3 workers of one CPU each; nobody can join a private Ray cluster, so there is nothing to wait for.
    with pytest.raises(UserError) as refused:
        check_local(ClusterSettings(num_cpus=2, wait_s=600), NEEDS, {})
    assert str(refused.value) == (
        "this machine is too small: 1 CPUs are missing; this would fit: learner.num_workers=2"
    )
    check_local(ClusterSettings(num_cpus=2), NEEDS, {}, is_running=True)  # It may be its own workers that hold them.
    check_local(ClusterSettings(address="10.0.0.1:6379", num_cpus=2), NEEDS, {})  # Known when it has been joined.


def test_a_busy_machine_is_not_called_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 GiB for one worker, of 24 GiB of which others hold 8; no Ray runs that could be asked for their names."""
    monkeypatch.setattr(nodes, "get_system_memory", lambda: 24 * 2**30)
    monkeypatch.setattr(nodes, "estimate_available_memory", lambda: 16 * 2**30)
    monkeypatch.setattr(ray.util, "list_named_actors", lambda: pytest.fail("Ray was asked"))
    large = (replace(NEEDS[0], count=1, memory_gib=20.0),)
    with pytest.raises(UserError) as refused:
        check_local(ClusterSettings(num_cpus=2), large, {})
    assert str(refused.value) == (
        "this machine is busy: 4 GiB are missing while others hold 0 CPUs, 0 GPUs, 8 GiB of its 2 CPUs, 0 GPUs, 24 "
        "GiB; the run fits once others have ended"
    )
    check_local(ClusterSettings(num_cpus=2), (replace(large[0], memory_gib=16.0),), {})  # All that is free.
    with pytest.raises(UserError, match=r"^this machine is too small: 9 GiB are missing"):
        check_local(ClusterSettings(num_cpus=2), (replace(large[0], memory_gib=25.0),), {})


def test_a_private_ray_has_all_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that fits this machine fits the Ray that is started then."""
    monkeypatch.setattr(nodes, "estimate_available_memory", lambda: 16 * 2**30)
    given: list[dict[str, Any]] = []

    def refuse(**arguments: Any) -> None:
        given.append(arguments)
        raise UserError("not started")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # Another test's may be there.
    with pytest.raises(UserError, match="not started"):
        start_or_join(ClusterSettings())
    assert given[0]["_memory"] == 16 * 2**30


def test_a_run_that_is_too_large_starts_no_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tmp_path / "rows.jsonl"
    too_many = 2 * (os.cpu_count() or 1) + 2  # Of half a CPU each.
    rows.write_text("".join(f'{{"prompt": "who is {n}?", "completion": "me"}}\n' for n in range(too_many)))
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    asked = SftRun(
        data=DemonstrationDataSettings(demonstrations=str(rows), heldout_fraction=0),
        policy=PolicySettings(model=write_policy(tmp_path / "policy")),
        learner=LearnerSettings(num_workers=too_many),
        sft=SftSettings(batch_size=too_many),
        storage=StorageSettings(path=str(tmp_path / "runs")),
    ).model_copy(update={"name": "large"})
    with pytest.raises(UserError, match="1 CPUs are missing"):
        run(asked, Watching())
    assert not (tmp_path / "runs").exists()
    # A place that cannot be written is told before the input is read.
    rows.unlink()
    with pytest.raises(UserError, match=r"storage\.path: .*policy/config\.json.* cannot be written: Not a directory"):
        run(
            asked.model_copy(update={"storage": StorageSettings(path=str(tmp_path / "policy/config.json"))}), Watching()
        )


def test_waiting_for_a_cluster_to_grow_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = chain([2.0] * 4, repeat(3.0))
    grown = lambda _: (Host("10.0.0.1", "n1", ResourceAmount(next(sizes), 0.0, 8.0)),)  # noqa: E731
    monkeypatch.setattr(Reservations, "free_plus_reserved", grown)
    monkeypatch.setattr(plumbob.cluster.session, "hosts", lambda free: ())
    requested: list[list[dict[str, float]]] = []
    monkeypatch.setattr(reservations, "request_resources", lambda bundles: requested.append(bundles))
    watching = Watching()
    Session(ClusterSettings(address="auto", wait_s=60), tmp_path, watching).admit(NEEDS)
    ((stage, message),) = watching.notes
    assert stage == "cluster" and message.startswith("1 CPUs are missing") and "waiting up to 60 s" in message
    assert requested == [[{"CPU": 1.0}] * 3, []]  # Ray's autoscaler, if there is one, may start the host.


def test_a_busy_cluster_is_not_called_too_small(one_cpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """3 learners of one CPU each, of 4 CPUs of which 2.5 are free."""
    monkeypatch.setattr(plumbob.cluster.admission, "BUSY_S", 0.1)
    monkeypatch.setattr(plumbob.cluster.session, "hosts", lambda free: (Host("h", "n1", ResourceAmount(4.0, 0, 8.0)),))
    left = [2.5]
    free = lambda _: (Host("h", "n1", ResourceAmount(left[0], 0.0, 6.0)),)  # noqa: E731
    monkeypatch.setattr(Reservations, "free_plus_reserved", free)
    watching = Watching()
    session = Session(ClusterSettings(address="auto"), tmp_path, watching)
    other = ControlClient("align", print)
    try:
        with pytest.raises(UserError) as refused:
            session.admit(NEEDS)
    finally:
        other.close()
    missing = (
        "0.5 CPUs are missing while others hold 1.5 CPUs, 0 GPUs, 2 GiB of its 4 CPUs, 0 GPUs, 8 GiB; this would fit "
        "now: learner.num_workers=2"
    )
    assert watching.notes == [("cluster", f"{missing}; waiting up to 0.1 s for others to end")]
    assert str(refused.value) == (
        f"the cluster is busy after waiting 0.1 s: {missing}; runs of Plumbob on it: align; the run fits once others "
        f"have ended: cluster.wait_s=3600 waits up to an hour for that"
    )
    left[0] = 3.0
    session.admit(NEEDS)
    # Of 5 there are never enough, whoever ends.
    with pytest.raises(UserError, match=r"^the cluster is too small: 2 CPUs are missing; this would fit: .*workers=3"):
        session.admit((replace(NEEDS[0], count=5),))


def test_an_address_where_nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was asked"))
    with socket.socket() as taken:  # Bound and never listening: its port refuses, and is nobody else's meanwhile.
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            NotRunningError, match=rf"cluster\.address={address}: nothing answers there: .*refused; give"
        ):
            start_or_join(ClusterSettings(address=address))
        client = f"ray://{address}"
        with (
            pytest.raises(NotRunningError, match=rf"cluster\.address={client}: nothing answers there: .*refused; give"),
            joined_briefly(client),
        ):
            pass


def test_a_run_is_refused_where_only_a_client_reaches_ray() -> None:
    with pytest.raises(
        UserError, match=r"cluster\.address=ray://head:10001: a run has to be on a host of its Ray cluster; `plumb"
    ):
        start_or_join(ClusterSettings(address="ray://head:10001"))


@pytest.mark.parametrize("address", ["head", "head:", "head:port", "head:99999", ":6379", "http://head:6379"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(UserError, match=rf"cluster\.address={address}: expected local, auto or HOST:PORT"):
        start_or_join(ClusterSettings(address=address))
