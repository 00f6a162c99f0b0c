"""How many workers may be lost in a slot."""

import pytest

from plumbob.cluster.failures import WorkerLost
from plumbob.cluster.fleet.recovery.budget import RestartBudget
from plumbob.core.errors import RunFailed


def test_what_a_worker_lost_says_is_short() -> None:
    restarts = RestartBudget(1)
    said = restarts.record_loss(WorkerLost("scorer-0 died\nits last words"), "scorer 0")
    assert said == "scorer-0 died; it is replaced (1 of 1 since the last step)"
    restarts.stepped("ppo", 1)
    restarts.record_loss(WorkerLost("scorer-1 died"), "scorer 0")
    with pytest.raises(RunFailed, match=r"^scorer-2 died\nthat is worker number 2 to be lost in its slot"):
        restarts.record_loss(WorkerLost("scorer-2 died"), "scorer 0")
    assert restarts.total == 3


def test_each_slot_has_a_budget_of_its_own() -> None:
    restarts = RestartBudget(1)
    for slot in range(8):  # A host with all its workers.
        restarts.record_loss(WorkerLost("died"), f"rollout {slot}")
    with pytest.raises(RunFailed):
        restarts.record_loss(WorkerLost("died"), "rollout 3")


def test_a_step_that_is_made_again_forgives_nothing() -> None:
    # The learners die at each commit of step 2, behind its line of metrics.
    restarts = RestartBudget(2)
    restarts.stepped("ppo", 1)
    for _ in range(2):
        restarts.stepped("ppo", 2)
        restarts.record_loss(WorkerLost("learner-0 died while saving"), "learners")
    restarts.stepped("ppo", 2)
    with pytest.raises(RunFailed):
        restarts.record_loss(WorkerLost("learner-0 died while saving"), "learners")
    restarts.stepped("dpo", 1)  # Another stage begins at its own first step.
    restarts.record_loss(WorkerLost("learner-0 died while saving"), "learners")
