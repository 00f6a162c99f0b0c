"""Workers that crash in the same way before they have worked."""

import pytest

from plumbob.cluster.failures import LearnersLost, WorkerLost
from plumbob.cluster.fleet.recovery.budget import RestartBudget
from plumbob.core.errors import RunFailed


def crashed(signal: str | None, has_worked: bool = False) -> WorkerLost:
    lost = WorkerLost(f"died: {signal}", crash=signal)
    lost.has_worked = has_worked
    return lost


def test_the_second_crash_of_a_role_by_one_signal_ends_the_run_whatever_its_slot() -> None:
    budget = RestartBudget(9)
    budget.record_loss(crashed("SIGILL"), "rollout 0")
    for other in (crashed("SIGSEGV"), crashed(None), crashed(None), crashed("SIGILL", has_worked=True)):
        budget.record_loss(other, "rollout 0")
    budget.record_loss(crashed("SIGILL"), "scorer 0")
    with pytest.raises(RunFailed) as failed:
        budget.record_loss(crashed("SIGILL"), "rollout 1")
    assert str(failed.value) == (
        "died: SIGILL\nthat is rollout worker number 2 to crash by SIGILL before it had done anything: its machine "
        "cannot do what is asked, and another one would end the same; try policy.dtype=float32, or "
        "rollout.engine.kind=transformers"
    )


def test_what_a_step_has_done_forgives_crashes() -> None:
    budget = RestartBudget(9)
    budget.record_loss(crashed("SIGILL"), "rollout 0")
    budget.stepped("ppo", 1)
    budget.record_loss(crashed("SIGILL"), "rollout 0")


def test_learners_crash_together() -> None:
    budget = RestartBudget(9)
    lost = LearnersLost("learner-0 died", crash="SIGFPE")
    budget.record_loss(lost, "learners")
    with pytest.raises(
        RunFailed, match=r"that is learner number 2 to crash by SIGFPE .*try policy\.dtype=float32 with"
    ):
        budget.record_loss(lost, "learners")
