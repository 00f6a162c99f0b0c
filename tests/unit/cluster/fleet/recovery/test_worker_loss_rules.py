"""When a member is given up: pure rules, with every moment made by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from plumbob.cluster.calls import BOOT_TIMEOUT, CALL_TIMEOUT, Actor
from plumbob.cluster.fleet.member import Member, PoolSnapshot, WorkerLossReason
from plumbob.cluster.fleet.recovery.worker_loss_rules import host_is_gone, worker_loss_rules
from plumbob.cluster.fleet.reservations import Reservation
from plumbob.cluster.fleet.work_queue import Preparation, Task, WorkBatch
from plumbob.cluster.resources import Host, ResourceAmount
from plumbob.configs.settings.workers import ClusterSettings

GROUP: Any = None
ON_N1 = Reservation("rollout", Host("10.0.0.1", "n1", ResourceAmount(1, 0, 0)), ResourceAmount(1, 0, 0), GROUP, 0)
HOUR = PoolSnapshot(3600.0, frozenset({"n1", "n2"}), frozenset())
JOB = WorkBatch([1], 1, lambda actor, items: None, "sampling", lambda _: None, lambda items, call, result: result)
SAMPLING = Task("the call", JOB, (0,), 3590.0, CALL_TIMEOUT)
OPENING = Task("the call", Preparation(lambda actor: None, "starting its engine"), (), 3590.0, BOOT_TIMEOUT)


def member(task: Task | None) -> Member:
    return Member(Actor("rollout-3", None, Path("rollout-3.log")), ON_N1, task=task)


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (None, "rollout-3: its host 10.0.0.1 is gone"),
        (SAMPLING, "rollout-3: its host 10.0.0.1 is gone while it was sampling"),
    ],
)
def test_a_host_that_is_gone(task: Task | None, reason: str) -> None:
    assert host_is_gone(member(task), HOUR) is None
    assert host_is_gone(member(task), replace(HOUR, living_nodes=frozenset({"n2"}))) == WorkerLossReason(reason)


@pytest.mark.parametrize(
    ("task", "call_timeout_s", "boot_timeout_s", "reason"),
    [
        (SAMPLING, 10.0, 1.0, None),  # It has been at it for 10 s.
        (SAMPLING, 9.0, 99.0, "rollout-3: still sampling after 9 s (cluster.call_timeout_s)"),
        (OPENING, 1.0, 10.0, None),
        (OPENING, 99.0, 9.0, "rollout-3: still starting its engine after 9 s (cluster.boot_timeout_s)"),
        (None, 1.0, 1.0, None),
    ],
)
def test_a_call_that_is_overdue(
    task: Task | None, call_timeout_s: float, boot_timeout_s: float, reason: str | None
) -> None:
    _, overdue = worker_loss_rules(ClusterSettings(call_timeout_s=call_timeout_s, boot_timeout_s=boot_timeout_s))
    assert overdue(member(task), HOUR) == (None if reason is None else WorkerLossReason(reason))
    # One that has ended is not late, though nobody has looked at it.
    assert overdue(member(task), replace(HOUR, ended=frozenset({"the call"}))) is None


def test_the_host_is_the_reason_where_both_hold() -> None:
    rules = worker_loss_rules(ClusterSettings(call_timeout_s=1.0))
    gone = replace(HOUR, living_nodes=frozenset[str]())
    found = [loss for rule in rules if (loss := rule(member(SAMPLING), gone)) is not None]
    assert [loss.reason.partition("is gone")[1] for loss in found] == ["is gone", ""]
