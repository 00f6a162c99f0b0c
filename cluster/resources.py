"""What workers need and what hosts have: CPUs, GPUs and memory, as pure data; and the groups that a run has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self, assert_never

from plumbob.configs.paths import may_be_adapter
from plumbob.configs.runs import AnyRun, EvalRun, OnlineRun, PipelineRun, RewardRun, TrainingRun
from plumbob.configs.settings.rewards import RewardGroupSettings
from plumbob.configs.settings.workers import LearnerRankSettings, RolloutSettings, WorkerGroupSettings
from plumbob.models.sizes.memory import DRIVER_FLOOR, GIB, PRIVATE_RAY_FLOOR, MemoryEstimate

TOLERANCE = 1e-4
"""Ray counts resources in ten thousandths."""

WorkerRole = Literal["learner", "rollout", "scorer", "gold_scorer"]


@dataclass(frozen=True)
class ResourceNeed:
    """A group of workers.

    Attributes:
        setting: the key that says how many.
        count: workers.
        num_cpus, num_gpus, memory_gib: what each asks of its host.
        spread: over as many hosts as there are, instead of packed on as few as possible.
    """

    role: WorkerRole
    setting: str
    count: int
    num_cpus: float
    num_gpus: float
    memory_gib: float
    spread: bool


def resource_needs(run: AnyRun) -> tuple[ResourceNeed, ...]:
    """The groups that a run has at the same time, at its widest."""
    match run:
        case RewardRun():
            return (
                (learner_need(run.learner),)
                if run.calibration.policy is None
                else (learner_need(run.learner), rollout_need(run.rollout))
            )
        case OnlineRun():
            scorers = [scorer_need(group) for group in (run.reward, run.gold_reward) if group is not None]
            return (learner_need(run.learner), rollout_need(run.rollout), *scorers)
        case PipelineRun():
            return (learner_need(run.learner), rollout_need(run.rollout), scorer_need(run.reward))
        case EvalRun():
            if run.policy is None:
                return (scorer_need(run.reward),)
            # Learners compute as the baseline, or as what a perplexity is of; a full model without either needs none.
            has_baseline = run.policy.baseline is not None or may_be_adapter(run.policy.model)
            baseline = (learner_need(run.learner),) if has_baseline or run.perplexity is not None else ()
            return (*baseline, rollout_need(run.rollout), scorer_need(run.reward))
        case TrainingRun():
            return (learner_need(run.learner),)
        case _:
            assert_never(run)


def learner_need(learner: LearnerRankSettings) -> ResourceNeed:
    return _need("learner", "learner", learner, learner.num_gpus)


def rollout_need(rollout: RolloutSettings) -> ResourceNeed:
    return _need("rollout", "rollout", rollout, rollout.num_gpus * rollout.tensor_parallel)


def scorer_need(scorer: RewardGroupSettings) -> ResourceNeed:
    return _need("scorer" if scorer.section == "reward" else "gold_scorer", scorer.section, scorer, scorer.num_gpus)


def _need(role: WorkerRole, section: str, workers: WorkerGroupSettings, num_gpus: float) -> ResourceNeed:
    return ResourceNeed(
        role=role,
        setting=f"{section}.num_workers",
        count=workers.num_workers,
        num_cpus=workers.num_cpus,
        num_gpus=num_gpus,
        memory_gib=workers.memory_gib,
        spread=workers.placement == "spread",
    )


class ResourceAmount(NamedTuple):
    """What a worker asks for, or a host has."""

    cpus: float
    gpus: float
    gib: float

    def plus(self, other: Self, times: float = 1.0) -> "ResourceAmount":
        return ResourceAmount(*(own + times * its for own, its in zip(self, other, strict=True)))

    def holds(self, other: Self) -> bool:
        return all(own + TOLERANCE >= its for own, its in zip(self, other, strict=True))

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs, {self.gpus:g} GPUs, {self.gib:.3g} GiB"


@dataclass(frozen=True)
class Host:
    """One machine of the cluster.

    Attributes:
        node_id: what Ray calls it.
        free: what it has and nobody has taken.
    """

    address: str
    node_id: str
    free: ResourceAmount


def resources_of(need: ResourceNeed) -> ResourceAmount:
    """Of one worker."""
    return ResourceAmount(need.num_cpus, need.num_gpus, need.memory_gib)


# ------------------------------------------------------------------------------------------------------------- expected

Expected = Mapping[str, Mapping[WorkerRole, MemoryEstimate]]
"""Stage -> role -> what one of its workers takes, of all workers that there are while the stage runs."""

DRIVER = DRIVER_FLOOR + PRIVATE_RAY_FLOOR
"""What a run takes beside its workers: its driver, and Ray's own processes."""


def memory_lines(needs: Sequence[ResourceNeed], expected: Expected, hosts: Sequence[Host]) -> list[str]:
    """What a person reads of it: each role, with what its settings ask for, then all together, with what is free."""
    rows = []
    largest = widest(expected)
    for need in needs:
        if need.role not in largest:
            continue
        estimate = largest[need.role]
        section = need.setting.partition(".")[0]
        where = "on its GPUs " if need.num_gpus else ""
        nowhere = "" if _fits_on_a_host(need, largest, hosts) else "; no host has that much free"
        more = "".join(settings_that_hold([need], expected))
        less = f" is less, so that hosts may be filled past their memory: set {more}" if more else ""
        beyond = f"; its programs may take {gib_in_words(estimate.beyond / GIB)} more" if estimate.beyond else ""
        rows.append(
            f"{need.role}: about {gib_in_words(estimate.total / GIB)} each {where}({parts_in_words(estimate)}); "
            f"{section}.memory_gib={need.memory_gib:g}{less}{nowhere}{beyond}"
        )
    if rows:
        whole, free = total_bytes(needs, expected) / GIB, _free_gib(needs, hosts)
        beside = " beside what is on GPUs" if any(need.num_gpus and need.role in largest for need in needs) else ""
        but = "" if whole <= free else ", which is less: the run may be ended for want of memory"
        compared = f"; {gib_in_words(free)} are free{but}" if hosts else ""
        rows.append(
            f"in all about {gib_in_words(whole)}{beside}, {gib_in_words(DRIVER / GIB)} of it the driver and Ray"
            f"{compared}"
        )
    return rows


def expected_gib(needs: Sequence[ResourceNeed], expected: Expected) -> dict[str, Any]:
    """As JSON has it, in GiB."""
    largest = widest(expected)
    roles = {
        need.role: {
            "each": largest[need.role].total / GIB,
            "parts": {name: size / GIB for name, size in largest[need.role].parts().items()},
            "programs_may_add": largest[need.role].beyond / GIB,
            "declared": need.memory_gib,
        }
        for need in needs
        if need.role in largest
    }
    if not roles:
        return {}
    return {"roles": roles, "driver_and_ray": DRIVER / GIB, "total": total_bytes(needs, expected) / GIB}


def memory_fits(needs: Sequence[ResourceNeed], expected: Expected, hosts: Sequence[Host]) -> bool | None:
    """Whether what is expected is free, of all workers together and of each on a host; None where nothing is expected.

    It says nothing of what is on GPUs.
    """
    largest = widest(expected)
    if not any(need.role in largest for need in needs):
        return None
    is_enough = total_bytes(needs, expected) / GIB <= _free_gib(needs, hosts)
    return is_enough and all(_fits_on_a_host(need, largest, hosts) for need in needs)


def _fits_on_a_host(need: ResourceNeed, largest: Mapping[WorkerRole, MemoryEstimate], hosts: Sequence[Host]) -> bool:
    roomiest = max((host.free.gib for host in hosts_of([need], hosts)), default=None)
    return roomiest is None or not on_hosts([need], largest) or largest[need.role].total / GIB <= roomiest


def _free_gib(needs: Sequence[ResourceNeed], hosts: Sequence[Host]) -> float:
    return sum(host.free.gib for host in hosts_of(needs, hosts))


def total_bytes(needs: Sequence[ResourceNeed], expected: Expected) -> int:
    """In the stage that takes most: of all workers that are not on GPUs, the driver and Ray."""
    stages = [[need.count * roles[need.role].total for need in on_hosts(needs, roles)] for roles in expected.values()]
    return DRIVER + max(map(sum, stages), default=0)


def on_hosts(needs: Sequence[ResourceNeed], roles: Mapping[WorkerRole, MemoryEstimate]) -> list[ResourceNeed]:
    """Those that have their models in their hosts' memory, and of which something is expected."""
    return [need for need in needs if not need.num_gpus and need.role in roles]


def widest(expected: Expected) -> dict[WorkerRole, MemoryEstimate]:
    """Role -> what one of its workers takes in the stage in which that is most."""
    found: dict[WorkerRole, MemoryEstimate] = {}
    for roles in expected.values():
        for role, estimate in roles.items():
            if role not in found or estimate.total > found[role].total:
                found[role] = estimate
    return found


def hosts_of(needs: Sequence[ResourceNeed], hosts: Sequence[Host]) -> list[Host]:
    """Those that a worker of at least one of the needs may be on, by its CPUs and GPUs."""
    return [
        host
        for host in hosts
        if any(host.free.holds(ResourceAmount(need.num_cpus, need.num_gpus, 0.0)) for need in needs)
    ]


def settings_that_hold(needs: Sequence[ResourceNeed], expected: Expected) -> list[str]:
    """What to set of workers on hosts that ask for less memory than they are expected to take."""
    largest = widest(expected)
    found = []
    for need in on_hosts(needs, largest):
        enough = round(largest[need.role].total / GIB + 0.05, 1)
        if enough > need.memory_gib:
            found.append(f"{need.setting.partition('.')[0]}.memory_gib={enough:g}")
    return found


def parts_in_words(estimate: MemoryEstimate) -> str:
    """In GiB, each with its name."""
    return ", ".join(f"{name} {size / GIB:.2g}" for name, size in estimate.parts().items())


def gib_in_words(gib: float) -> str:
    return f"{gib:.3g} GiB"
