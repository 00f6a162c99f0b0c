"""What a run needs against what the cluster has: a pure plan, said before anything starts."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, assert_never

from configs.roles import LearnerRanks, Rollout, Scorer
from configs.schema import (
    AnyRun,
    DpoRun,
    EvalRun,
    KtoRun,
    PipelineRun,
    PpoRun,
    PretrainEncoderRun,
    PretrainRun,
    RewardRun,
    SftRun,
)


@dataclass(frozen=True)
class Need:
    """A group of workers.

    Attributes:
        role: "learner", "rollout" or "scorer".
        setting: the key that says how many.
        count: workers.
        num_cpus, num_gpus: what each asks of Ray.
    """

    role: str
    setting: str
    count: int
    num_cpus: float
    num_gpus: float


@dataclass(frozen=True)
class Capacity:
    """What a cluster has in all."""

    num_cpus: float
    num_gpus: float


@dataclass(frozen=True)
class Plan:
    """What runs side by side at the run's widest moment, and whether the cluster holds it."""

    needs: tuple[Need, ...]
    capacity: Capacity

    @property
    def num_cpus(self) -> float:
        return sum(need.count * need.num_cpus for need in self.needs)

    @property
    def num_gpus(self) -> float:
        return sum(need.count * need.num_gpus for need in self.needs)

    @property
    def fits(self) -> bool:
        return self.num_cpus <= self.capacity.num_cpus and self.num_gpus <= self.capacity.num_gpus

    def lines(self) -> list[str]:
        rows = [
            f"{n.role:<8} {n.count} x {n.num_cpus:g} CPUs, {n.num_gpus:g} GPUs ({n.setting}={n.count})"
            for n in self.needs
        ]
        rows.append(
            f"together {self.num_cpus:g} CPUs, {self.num_gpus:g} GPUs; "
            f"the cluster has {self.capacity.num_cpus:g} CPUs, {self.capacity.num_gpus:g} GPUs"
        )
        return [*rows, "it fits" if self.fits else self.what_is_missing()]

    def what_is_missing(self) -> str:
        """One sentence: what lacks, and the nearest counts that would fit."""
        lacking = [
            f"{needed - there:g} {what}"
            for what, needed, there in (
                ("CPUs", self.num_cpus, self.capacity.num_cpus),
                ("GPUs", self.num_gpus, self.capacity.num_gpus),
            )
            if needed > there
        ]
        sentence = f"{' and '.join(lacking)} are missing"
        nearest = self.nearest_fit()
        if nearest is None:
            return f"{sentence}, and one worker of each role does not fit either: lower *.num_cpus or *.num_gpus"
        return f"{sentence}; this would fit: {' '.join(f'{need.setting}={need.count}' for need in nearest)}"

    def nearest_fit(self) -> tuple[Need, ...] | None:
        """The same roles with fewer workers, taken from the largest group first; None if one of each is too many."""
        needs = list(self.needs)
        while not Plan(tuple(needs), self.capacity).fits:
            largest = max(range(len(needs)), key=lambda place: needs[place].count)
            if needs[largest].count == 1:
                return None
            fewer = asdict(needs[largest]) | {"count": needs[largest].count - 1}
            needs[largest] = Need(**fewer)
        return tuple(needs)

    def as_dict(self) -> dict[str, Any]:
        return {
            "needs": [asdict(need) for need in self.needs],
            "capacity": asdict(self.capacity),
            "fits": self.fits,
            "missing": None if self.fits else self.what_is_missing(),
        }


def needs_of(run: AnyRun) -> tuple[Need, ...]:
    """The groups that a run has at the same time, at its widest."""
    match run:
        case PretrainRun() | PretrainEncoderRun() | SftRun() | DpoRun() | KtoRun():
            return (learners(run.learner),)
        case RewardRun():
            return (
                (learners(run.learner),)
                if run.calibration.policy is None
                else (learners(run.learner), rollouts(run.rollout))
            )
        case PpoRun():
            judges = () if run.judge is None else (scorers(run.judge, "judge"),)
            return (learners(run.learner), rollouts(run.rollout), scorers(run.reward), *judges)
        case PipelineRun():
            return (learners(run.learner), rollouts(run.rollout), scorers(run.reward))
        case EvalRun():
            if run.policy is None:
                return (scorers(run.reward),)
            return (learners(run.learner), rollouts(run.rollout), scorers(run.reward))
        case _:
            assert_never(run)


def learners(learner: LearnerRanks) -> Need:
    return Need("learner", "learner.num_workers", learner.num_workers, learner.num_cpus, learner.num_gpus)


def rollouts(rollout: Rollout) -> Need:
    gpus = rollout.num_gpus * rollout.tensor_parallel
    return Need("rollout", "rollout.num_workers", rollout.num_workers, rollout.num_cpus, gpus)


def scorers(scorer: Scorer, section: Literal["reward", "judge"] = "reward") -> Need:
    role = "scorer" if section == "reward" else "judge"
    return Need(role, f"{section}.num_workers", scorer.num_workers, scorer.num_cpus, scorer.num_gpus)
