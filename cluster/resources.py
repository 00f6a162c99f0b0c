"""What workers need and what hosts have: CPUs, GPUs and memory, as pure data; and the groups that a run has."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Self, assert_never

from plumbob.configs.paths import may_be_adapter
from plumbob.configs.runs import AnyRun, EvalRun, PipelineRun, PpoRun, RewardRun, TrainingRun
from plumbob.configs.settings.rewards import RewardGroupSettings
from plumbob.configs.settings.workers import LearnerRankSettings, RolloutSettings, WorkerGroupSettings

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
