"""Runs whose weights alone are larger than the memory: refused here, and said of a Ray that was joined."""

from dataclasses import replace

import pytest

import plumbob.cluster.admission
from plumbob.cluster.admission import check_local, joined_notes, what_cannot_be
from plumbob.cluster.resources import Expected, Host, ResourceAmount, ResourceNeed
from plumbob.configs.settings.workers import ClusterSettings
from plumbob.core.errors import UserError
from plumbob.models.sizes.memory import GIB, MemoryEstimate

LEARNER = ResourceNeed("learner", "learner.num_workers", 1, 0.5, 0.0, 1.0, spread=False)
ROLLOUT = replace(LEARNER, role="rollout", setting="rollout.num_workers", count=2)
BOTH = (LEARNER, ROLLOUT)
EXPECTED: Expected = {
    "ppo": {
        # 6 GiB for certain; activations may be fewer.
        "learner": MemoryEstimate(weights=2 * GIB, optimizer=4 * GIB, activations=90 * GIB),
        "rollout": MemoryEstimate(weights=2 * GIB, cache=90 * GIB),
    }
}
ONE_IS_TOO_LARGE = (
    "stage ppo: one worker of role learner takes 6 GiB for its weights and their optimizer alone, about 96 GiB in all "
    "(weights 2, optimizer 4, activations 90), and 10.0.0.2 has 5.5 GiB"
)


def hosts(*gib: float, cpus: float = 8.0) -> tuple[Host, ...]:
    return tuple(Host(f"10.0.0.{at}", f"n{at}", ResourceAmount(cpus, 0, each)) for at, each in enumerate(gib, start=1))


def test_what_may_fit_is_let_through() -> None:
    assert what_cannot_be(BOTH, EXPECTED, hosts(10.0)) is None
    assert what_cannot_be(BOTH, EXPECTED, hosts(6.0, 4.0)) is None
    assert what_cannot_be((LEARNER,), {}, hosts(1.0)) is None
    assert what_cannot_be((LEARNER,), EXPECTED, ()) is None
    assert what_cannot_be((replace(LEARNER, num_gpus=1.0),), EXPECTED, hosts(1.0)) is None


def test_one_worker_that_is_larger_than_every_host() -> None:
    assert what_cannot_be(BOTH, EXPECTED, hosts(5.0, 5.5, 5.0)) == ONE_IS_TOO_LARGE


def test_workers_that_are_too_many() -> None:
    assert what_cannot_be(BOTH, EXPECTED, hosts(6.0, 3.9)) == (
        "stage ppo: the weights of all workers and their optimizers take 10 GiB together (learner.num_workers=1, "
        "rollout.num_workers=2; fewer may fit), and the hosts that they may be on have 9.9 GiB"
    )


def test_stages_follow_one_another() -> None:
    """30 GiB for the first stage's learner, 2 + 5 x 8 GiB for the workers of the second: never 30 + 40 at once."""
    learner, sampler = MemoryEstimate(weights=10 * GIB, optimizer=20 * GIB), MemoryEstimate(weights=8 * GIB)
    small = MemoryEstimate(weights=2 * GIB, activations=100 * GIB)  # Its total is larger, and may be wrong.
    expected: Expected = {"pretrain": {"learner": learner}, "ppo": {"learner": small, "rollout": sampler}}
    needs = (LEARNER, replace(ROLLOUT, count=5))
    assert what_cannot_be(needs, expected, hosts(42.0)) is None
    assert str(what_cannot_be(needs, expected, hosts(41.9))).startswith("stage ppo: the weights of all workers")
    assert str(what_cannot_be(needs, expected, hosts(29.0, 29.0))).startswith(
        "stage pretrain: one worker of role learner takes 30 GiB"
    )


def test_hosts_that_can_run_no_worker_do_not_count() -> None:
    """As the head that KubeRay starts with no CPUs for workers."""
    head = Host("10.0.0.9", "head", ResourceAmount(0, 0, 64.0))
    assert what_cannot_be(BOTH, EXPECTED, (head, *hosts(5.0, 5.5))) == ONE_IS_TOO_LARGE
    assert "have 9.9 GiB" in str(what_cannot_be(BOTH, EXPECTED, (head, *hosts(6.0, 3.9))))


def test_this_machine_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plumbob.cluster.admission, "this_machine", lambda cluster, free=True: hosts(5.0, 5.5))
    with pytest.raises(UserError) as refused:
        check_local(ClusterSettings(), BOTH, EXPECTED)
    assert str(refused.value).startswith(f"{ONE_IS_TOO_LARGE}: take a smaller model, policy.dtype=bfloat16, an adapter")


def test_a_ray_that_was_joined_has_a_figure_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sampler of 14 GiB runs on a host of 23 GiB, whose Ray says 13.3: what of it was free, less its object store."""
    sampler: Expected = {"eval": {"rollout": MemoryEstimate(weights=14 * GIB, framework=GIB)}}
    monkeypatch.setattr(plumbob.cluster.admission, "hosts", lambda free: hosts(13.3))
    joined = ClusterSettings(address="auto")
    check_local(joined, (replace(ROLLOUT, count=1),), sampler)
    (note,) = joined_notes(joined, (replace(ROLLOUT, count=1),), sampler)
    assert "takes 14 GiB for its weights" in note and "10.0.0.1 has 13.3 GiB by its Ray, which may be less" in note
    assert note.endswith(
        "`ray start --memory=BYTES` says so, and rollout.memory_gib=15.1 places each where it has room"
    )
    monkeypatch.setattr(plumbob.cluster.admission, "hosts", lambda free: hosts(14.0))
    assert joined_notes(joined, (replace(ROLLOUT, count=1),), sampler) == ()
