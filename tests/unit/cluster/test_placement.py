"""The plan of a run: who goes where, what is missing, and what would fit."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from plumbob.cluster import placement
from plumbob.cluster.placement import BUT_NOT_BY_MEMORY, Plan, choose, evicted, nearest_fit, plan
from plumbob.cluster.resources import Expected, Host, ResourceAmount, ResourceNeed
from plumbob.models.sizes.memory import GIB, MemoryEstimate


def need(role: str, count: int, cpus: float, gpus: float = 0.0, gib: float = 0.0, spread: bool = True) -> ResourceNeed:
    return ResourceNeed(role, f"{role}.num_workers", count, cpus, gpus, gib, spread)  # type: ignore[arg-type]


def hosts(*free: tuple[float, float, float]) -> tuple[Host, ...]:
    return tuple(Host(f"10.0.0.{place}", f"n{place}", ResourceAmount(*has)) for place, has in enumerate(free, 1))


def addresses(made: Plan) -> list[str]:
    """`10.0.0.1` is "1"; one string a need."""
    assert made.placed is not None
    return ["".join(host.address[-1] for host in placed) for placed in made.placed]


def test_a_plan_says_who_goes_where() -> None:
    made = plan((need("learner", 2, 1.5, 1, 4, spread=False), need("rollout", 3, 0.5, 2, 1)), hosts((4.5, 8, 11)))
    # 2 x 1.5 + 3 x 0.5 = 4.5 CPUs; 2 x 1 + 3 x 2 = 8 GPUs; 2 x 4 + 3 x 1 = 11 GiB: exactly what there is.
    assert made.fits and made.needed == (4.5, 8, 11)
    assert made.lines() == [
        "learner  2 x 1.5 CPUs, 1 GPUs, 4 GiB (learner.num_workers=2) on 10.0.0.1 (2)",
        "rollout  3 x 0.5 CPUs, 2 GPUs, 1 GiB (rollout.num_workers=3) on 10.0.0.1 (3)",
        "host     10.0.0.1 has 4.5 CPUs, 8 GPUs, 11 GiB free",
        "together 4.5 CPUs, 8 GPUs, 11 GiB",
        "it fits",
    ]
    assert made.as_dict()["missing"] is None
    assert made.as_dict()["needs"][0]["hosts"] == ["10.0.0.1", "10.0.0.1"]
    for lacking in ((4.4, 8, 11), (4.5, 7, 11), (4.5, 8, 10.9)):
        assert not plan(made.needs, hosts(lacking)).fits


def test_a_plan_may_fit_but_for_the_memory_that_is_expected() -> None:
    """3 GiB for one worker, 0.95 for the driver and Ray."""
    expected: Expected = {"sft": {"learner": MemoryEstimate(activations=3 * GIB)}}
    learner = need("learner", 1, 1, gib=1)
    for has, fits, end in (
        ([(1, 0, 3.96)], True, "it fits"),
        ([(1, 0, 3.94)], False, "it fits by what the settings ask for, but not by the memory that is expected"),
        # Enough together, and on no host; or on one that has no CPU for it.
        ([(1, 0, 2.9), (1, 0, 2.9)], False, BUT_NOT_BY_MEMORY),
        ([(1, 0, 2.9), (0, 0, 60)], False, BUT_NOT_BY_MEMORY),
    ):
        made = replace(plan([learner], hosts(*has)), expected=expected)
        assert made.fits and (made.as_dict()["memory_fits"], made.lines()[-1]) == (fits, end)
    nothing_known = plan([learner], hosts((1, 0, 2)))
    assert (nothing_known.as_dict()["memory_fits"], nothing_known.lines()[-1]) == (None, "it fits")
    # What is on a GPU takes none of its host's.
    on_gpu = replace(plan([replace(learner, num_gpus=1)], hosts((1, 1, 2))), expected=expected)
    assert on_gpu.memory_fits and on_gpu.lines()[-1] == "it fits"


def test_groups_are_spread_or_packed_as_they_ask() -> None:
    three = hosts((4, 0, 8), (4, 0, 8), (4, 0, 8))
    spread, packed = need("rollout", 4, 1), need("learner", 4, 1, spread=False)
    # The fourth begins the second round. All four of a packed group share one host.
    assert addresses(plan([spread], three)) == ["1231"]
    assert addresses(plan([packed], three)) == ["1111"]
    # The packed ones fill the first host, which the first need of the same size takes; the others go where they fit.
    assert addresses(plan([packed, spread], three)) == ["1111", "2323"]


def test_larger_workers_are_placed_first_and_tightly_where_nothing_else_fits() -> None:
    # Two of 1 CPU spread over both hosts would leave no host for the one of 4.
    assert addresses(plan([need("scorer", 2, 1), need("learner", 1, 4)], hosts((4, 0, 1), (4, 0, 1)))) == ["22", "1"]
    # Of equal size, on hosts of 3 and 2: the pair of 1.5 would be spread, and the one of 1 GiB then fits nowhere.
    large, small = need("rollout", 2, 1.5, gib=1), need("scorer", 1, 1.5, gib=3)
    assert addresses(plan([large, small], hosts((3, 0, 3), (1.5, 0, 3)))) == ["11", "2"]


def test_the_next_worker_goes_where_the_fewest_of_its_group_are() -> None:
    three = hosts((1, 0, 8), (4, 0, 8), (2, 0, 8))
    one = need("rollout", 1, 1)
    chosen = choose(one, three, {"n2": 1})
    assert chosen is not None and chosen.node_id == "n3"  # The roomier of those without one.
    assert choose(need("rollout", 1, 5), three, {}) is None


def test_the_nearest_fit_takes_from_the_largest_group_first() -> None:
    three = (need("learner", 2, 1), need("rollout", 5, 1), need("scorer", 1, 0.5))
    # 7.5 CPUs: rollout 5 -> 4 -> 3 -> 2 gives 4.5.
    assert plan(three, hosts((4.5, 0, 0))).what_is_missing() == (
        "3 CPUs are missing; this would fit: learner.num_workers=2 rollout.num_workers=2 scorer.num_workers=1"
    )
    # One less: both groups have 2, the first gives way.
    assert "learner.num_workers=1 rollout.num_workers=2" in plan(three, hosts((3.5, 0, 0))).what_is_missing()


def test_several_kinds_may_lack_and_one_of_each_may_be_too_many() -> None:
    made = plan((need("learner", 1, 2, 1, 3), need("rollout", 1, 1, 1)), hosts((2, 0, 2)))
    assert made.what_is_missing() == (
        "1 CPUs and 2 GPUs and 1 GiB are missing, and one worker of each role does not fit either: "
        "lower *.num_cpus, *.num_gpus or *.memory_gib"
    )
    assert made.lines()[-1] == made.what_is_missing() == made.as_dict()["missing"]


def test_no_host_at_all_is_what_is_missing() -> None:
    # One that asks for nothing fits nowhere either.
    for cpus in (0, 1):
        assert plan([need("rollout", 1, cpus)], ()).what_is_missing() == "there is no host to run on: start Ray on one"


def test_a_worker_that_is_larger_than_every_host() -> None:
    # 8 GPUs in all, none of the hosts has more than 4.
    made = plan([need("rollout", 1, 1, 8)], hosts((8, 4, 8), (9, 4, 8)))
    assert made.what_is_missing().startswith(
        "the workers do not fit on single hosts: one of role rollout needs 1 CPUs, 8 GPUs, 0 GiB, and the roomiest "
        "host, 10.0.0.2, has 9 CPUs, 4 GPUs, 8 GiB"
    )
    made = plan([need("rollout", 2, 3)], hosts((4, 0, 0), (2, 0, 0)))
    assert made.what_is_missing().endswith("; this would fit: rollout.num_workers=1")


def test_as_few_as_it_takes_are_evicted() -> None:
    two = need("learner", 2, 1, 1, spread=False)
    free = hosts((0, 0, 0), (1, 1, 0), (0, 1, 0))
    cpu, whole, other = (
        ("n3", ResourceAmount(1, 0, 0)),
        ("n1", ResourceAmount(1, 1, 0)),
        ("n2", ResourceAmount(2, 1, 0)),
    )
    # n2 holds one rank as it is. The worker of one CPU on n3 has the GPU beside it free: with it gone the other fits.
    assert evicted(two, free, [cpu, whole]) == [0]
    assert evicted(two, free, [whole, cpu]) == [0]
    # Nothing is gained by a worker whose host is not in question: the next one has to go.
    assert evicted(two, free, [("elsewhere", ResourceAmount(8, 8, 8)), other]) == [1]
    # Two small ones on one host are in the way of one rank, neither of them alone.
    assert evicted(
        two, hosts((0, 0, 0), (1, 1, 0)), [("n1", ResourceAmount(1, 0, 0)), ("n1", ResourceAmount(0, 1, 0))]
    ) == [
        0,
        1,
    ]
    assert evicted(two, hosts((2, 2, 0)), [whole]) == []  # It fits as it is.
    assert evicted(two, free[:1], [whole]) is None


def fewer_one_by_one(needs: Sequence[ResourceNeed], on: Sequence[Host]) -> tuple[ResourceNeed, ...] | None:
    """What `nearest_fit` finds, by trying every count."""
    fewer = list(needs)
    while not plan(fewer, on).fits:
        largest = max(range(len(fewer)), key=lambda index: fewer[index].count)
        if fewer[largest].count == 1:
            return None
        fewer[largest] = replace(fewer[largest], count=fewer[largest].count - 1)
    return tuple(fewer)


def random_case(draw: random.Random, most_groups: int) -> tuple[list[ResourceNeed], tuple[Host, ...]]:
    roles = ("learner", "rollout", "scorer", "gold_scorer")[: draw.randint(1, most_groups)]
    needs = [
        need(role, draw.randint(1, 6), draw.choice((0.5, 1, 2, 3)), draw.choice((0, 0, 1)), draw.choice((0, 1, 2)))
        for role in roles
    ]
    packed = [replace(one, spread=draw.random() < 0.5) for one in needs]
    free = [(draw.randint(0, 8), draw.choice((0, 2, 4)), draw.randint(0, 12)) for _ in range(draw.randint(1, 3))]
    return packed, hosts(*free)


def test_the_nearest_fit_of_two_groups_is_what_trying_every_count_finds() -> None:
    draw = random.Random(0)
    found = [(nearest_fit(*case), fewer_one_by_one(*case)) for case in (random_case(draw, 2) for _ in range(400))]
    assert [halved for halved, _ in found] == [tried for _, tried in found]
    assert sum(tried is None for _, tried in found) > 40  # One of each is too many.


def test_the_nearest_fit_of_more_groups_fits_and_is_hardly_ever_smaller() -> None:
    draw = random.Random(0)
    others = 0
    for case in (random_case(draw, 4) for _ in range(400)):
        halved, tried = nearest_fit(*case), fewer_one_by_one(*case)
        assert halved is None or plan(halved, case[1]).fits
        others += halved != tried
    assert others <= 2


@pytest.mark.parametrize("num_workers", [8, 128])
def test_the_nearest_fit_makes_a_plan_for_each_halving(monkeypatch: pytest.MonkeyPatch, num_workers: int) -> None:
    num_plans = 0

    def counted(needs: Sequence[ResourceNeed], on: Sequence[Host]) -> Plan:
        nonlocal num_plans
        num_plans += 1
        return plan(needs, on)

    monkeypatch.setattr(placement, "plan", counted)
    # Hosts for one learner and one rollout worker, of 1 CPU each.
    found = nearest_fit([need("learner", num_workers, 1), need("rollout", num_workers, 1)], hosts((1, 0, 0), (1, 0, 0)))
    assert found is not None and [one.count for one in found] == [1, 1]
    # One of the 2n - 1 counts (from n and n to 1 and 1), or none: log2(2n) halvings.
    assert num_plans <= {8: 4, 128: 8}[num_workers]
