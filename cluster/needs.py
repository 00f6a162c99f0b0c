"""The groups of workers that a run has at the same time, at its widest moment."""

from dataclasses import dataclass
from typing import Literal, assert_never

from configs.roles import LearnerRanks, Rollout, Scorer, Workers
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

Role = Literal["learner", "rollout", "scorer", "judge"]


@dataclass(frozen=True)
class Need:
    """A group of workers.

    Attributes:
        setting: the key that says how many.
        count: workers.
        num_cpus, num_gpus, memory_gib: what each asks of its host.
        spread: over as many hosts as there are, instead of packed on as few as possible.
    """

    role: Role
    setting: str
    count: int
    num_cpus: float
    num_gpus: float
    memory_gib: float
    spread: bool


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
    return _need("learner", "learner", learner, learner.num_gpus)


def rollouts(rollout: Rollout) -> Need:
    return _need("rollout", "rollout", rollout, rollout.num_gpus * rollout.tensor_parallel)


def scorers(scorer: Scorer, section: Literal["reward", "judge"] = "reward") -> Need:
    return _need("scorer" if section == "reward" else "judge", section, scorer, scorer.num_gpus)


def _need(role: Role, section: str, workers: Workers, num_gpus: float) -> Need:
    return Need(
        role=role,
        setting=f"{section}.num_workers",
        count=workers.num_workers,
        num_cpus=workers.num_cpus,
        num_gpus=num_gpus,
        memory_gib=workers.memory_gib,
        spread=workers.placement == "spread",
    )
