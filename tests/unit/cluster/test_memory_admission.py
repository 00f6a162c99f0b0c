"""Runs whose weights alone are larger than the memory are refused."""

from dataclasses import replace

import pytest

from plumbob.cluster.admission import check_memory
from plumbob.cluster.resources import Expected, Host, ResourceAmount, ResourceNeed
from plumbob.core.errors import UserError
from plumbob.models.sizes.memory import GIB, MemoryEstimate

LEARNER = ResourceNeed("learner", "learner.num_workers", 1, 0.5, 0.0, 1.0, spread=False)
ROLLOUT = replace(LEARNER, role="rollout", setting="rollout.num_workers", count=2)
EXPECTED: Expected = {
    # 6 GiB for certain; activations may be fewer.
    "learner": MemoryEstimate(weights=2 * GIB, optimizer=4 * GIB, activations=90 * GIB),
    "rollout": MemoryEstimate(weights=2 * GIB, cache=90 * GIB),
}


def hosts(*gib: float) -> tuple[Host, ...]:
    return tuple(Host(f"10.0.0.{at}", f"n{at}", ResourceAmount(8, 0, each)) for at, each in enumerate(gib, start=1))


def test_what_may_fit_is_let_through() -> None:
    check_memory((LEARNER, ROLLOUT), EXPECTED, hosts(10.0))
    check_memory((LEARNER, ROLLOUT), EXPECTED, hosts(6.0, 4.0))
    check_memory((LEARNER,), {}, hosts(1.0))
    check_memory((LEARNER,), EXPECTED, ())
    check_memory((replace(LEARNER, num_gpus=1.0),), EXPECTED, hosts(1.0))


def test_one_worker_that_is_larger_than_every_host() -> None:
    with pytest.raises(UserError) as refused:
        check_memory((LEARNER, ROLLOUT), EXPECTED, hosts(5.0, 5.5, 5.0))
    assert str(refused.value).startswith(
        "one worker of role learner takes 6 GiB for its weights and their optimizer alone, about 96 GiB in all "
        "(weights 2, optimizer 4, activations 90), and 10.0.0.2 has 5.5 GiB: take a "
        "smaller model, policy.dtype=bfloat16, an adapter"
    )


def test_workers_that_are_too_many() -> None:
    with pytest.raises(UserError) as refused:
        check_memory((LEARNER, ROLLOUT), EXPECTED, hosts(6.0, 3.9))
    assert str(refused.value).startswith(
        "the weights of all workers and their optimizers take 10 GiB together (learner.num_workers=1, "
        "rollout.num_workers=2), and the hosts have 9.9 GiB: "
    )
