"""What workers need and what hosts have: CPUs, GPUs and memory, as pure data; and the groups that a run has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self, assert_never

from plumbob.configs.paths import may_be_adapter
from plumbob.configs.runs import AnyRun, EvalRun, PipelineRun, PpoRun, RewardRun, TrainingRun
from plumbob.configs.settings.rewards import RewardGroupSettings
from plumbob.configs.settings.workers import LearnerRankSettings, RolloutSettings, WorkerGroupSettings
from plumbob.models.sizes.memory import DRIVER_FLOOR, GIB, PRIVATE_RAY_FLOOR, MemoryEstimate

TOLERANCE = 1e-4
"""Ray counts resources in ten thousandths."""

WorkerRole = Literal["learner", "rollout", "scorer", "judge"]


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
        case PpoRun():
            judges = () if run.judge is None else (scorer_need(run.judge),)
            return (learner_need(run.learner), rollout_need(run.rollout), scorer_need(run.reward), *judges)
        case PipelineRun():
            return (learner_need(run.learner), rollout_need(run.rollout), scorer_need(run.reward))
        case EvalRun():
            if run.policy is None:
                return (scorer_need(run.reward),)
            # Learners compute as the baseline; a full model without one is described by itself.
            has_baseline = run.policy.baseline is not None or may_be_adapter(run.policy.model)
            baseline = (learner_need(run.learner),) if has_baseline else ()
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
    return _need("scorer" if scorer.section == "reward" else "judge", scorer.section, scorer, scorer.num_gpus)


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

Expected = Mapping[WorkerRole, MemoryEstimate]
"""Role -> what one of its workers takes."""

DRIVER = DRIVER_FLOOR + PRIVATE_RAY_FLOOR
"""What a run takes beside its workers: its driver, and Ray's own processes."""


def memory_lines(needs: Sequence[ResourceNeed], expected: Expected, hosts: Sequence[Host]) -> list[str]:
    """What a person reads of it: each role, with what its settings ask for, then all together, with what is free."""
    rows = []
    for need in needs:
        if need.role not in expected:
            continue
        estimate = expected[need.role]
        section = need.setting.partition(".")[0]
        where = "on its GPUs " if need.num_gpus else ""
        rows.append(
            f"{need.role}: about {gib_in_words(estimate.total / GIB)} each {where}({parts_in_words(estimate)}); "
            f"{section}.memory_gib={need.memory_gib:g}" + (_too_little(section, need, estimate) if not where else "")
        )
    if rows:
        whole, free = total_bytes(needs, expected) / GIB, sum(host.free.gib for host in hosts)
        but = "" if whole <= free else ", which is less: the run may be ended for want of memory"
        rows.append(
            f"in all about {gib_in_words(whole)}, {gib_in_words(DRIVER / GIB)} of it the driver and Ray; "
            f"{gib_in_words(free)} are free{but}"
        )
    return rows


def expected_gib(needs: Sequence[ResourceNeed], expected: Expected) -> dict[str, Any]:
    """As JSON has it, in GiB."""
    roles = {
        need.role: {
            "each": expected[need.role].total / GIB,
            "parts": {name: size / GIB for name, size in expected[need.role].parts().items()},
            "declared": need.memory_gib,
        }
        for need in needs
        if need.role in expected
    }
    if not roles:
        return {}
    return {"roles": roles, "driver_and_ray": DRIVER / GIB, "total": total_bytes(needs, expected) / GIB}


def total_bytes(needs: Sequence[ResourceNeed], expected: Expected) -> int:
    """Of all workers, the driver and Ray."""
    return DRIVER + sum(need.count * expected[need.role].total for need in needs if need.role in expected)


def _too_little(section: str, need: ResourceNeed, estimate: MemoryEstimate) -> str:
    enough = round(estimate.total / GIB + 0.05, 1)
    if enough <= need.memory_gib:
        return ""
    return f" is less, so that hosts may be filled past their memory: set {section}.memory_gib={enough:g}"


def parts_in_words(estimate: MemoryEstimate) -> str:
    """In GiB, each with its name."""
    return ", ".join(f"{name} {size / GIB:.2g}" for name, size in estimate.parts().items())


def gib_in_words(gib: float) -> str:
    return f"{gib:.3g} GiB"
