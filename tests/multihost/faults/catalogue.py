"""Which faults there are, and in which order and in which kind of run a seed has them."""

from dataclasses import dataclass
from random import Random

from tests.multihost.faults.kinds import DAMAGES
from tests.multihost.faults.system_under_test import Fault

ROLES = ("rollout", "scorer", "learner")
PHASES = ("sample", "score", "logprobs", "learn", "commit", "publish")
OWN_PHASE = {"rollout": "sample", "scorer": "score", "learner": "learn"}
"""Role -> the phase that is its work."""

HOST_KINDS = ("raylet killed", "link cut shortly", "link cut for long", "link slow")
PARTIAL: dict[str, object] = {"rollout.partial_tokens": 4}

MEMORY_KINDS = ("out of memory", "out of memory for long")


@dataclass(frozen=True)
class Setting:
    """A kind of run.

    Attributes:
        own: settings beside those of all runs.
        max_staleness: at 0 what it ends with is always the same.
        faults: those that are tried on it.
    """

    name: str
    own: dict[str, object]
    max_staleness: int
    faults: tuple[Fault, ...]


def settings(random: Random) -> tuple[Setting, ...]:
    """All runs' faults, each run's in the order of the dice."""
    synchronous, two_learners, asynchronous = on_one_learner(random), on_two_learners(random), on_sampling_ahead(random)
    partial = on_partial_responses()
    for faults in (synchronous, two_learners, asynchronous, partial):
        random.shuffle(faults)
    return (
        Setting("synchronous", {}, 0, tuple(synchronous)),
        Setting(
            "two-learners",
            {"learner.num_workers": 2, "learner.placement": "spread", "learner.micro_batch_size": 2},
            0,
            tuple(two_learners),
        ),
        Setting("asynchronous", {"online.max_staleness": 1}, 1, tuple(asynchronous)),
        Setting("asynchronous-partial", {"online.max_staleness": 1} | PARTIAL, 1, tuple(partial)),
    )


def on_one_learner(random: Random) -> list[Fault]:
    """Every role killed in every phase; every fault of a host in every phase, whoever works there; storage."""
    return [
        *(Fault("worker killed", role, phase) for role in ROLES for phase in PHASES),
        *(Fault("worker and its successor killed", role, phase) for role, phase in OWN_PHASE.items()),
        *(Fault("driver killed", "driver", phase) for phase in (*PHASES, "rename")),
        *(Fault(kind, random.choice(ROLES), phase) for kind in HOST_KINDS for phase in PHASES),
        *(Fault("disk full", "disk", phase) for phase in ("learn", "commit")),
        *(Fault("checkpoint damaged", damage, random.choice(PHASES)) for damage in DAMAGES),
        *(Fault(kind, role, phase) for kind in MEMORY_KINDS for role, phase in OWN_PHASE.items()),
    ]


def on_two_learners(random: Random) -> list[Fault]:
    """One rank lost, in all that ranks do together."""
    together = ("logprobs", "learn", "commit", "publish")
    return [
        *(Fault("worker killed", "learner", phase) for phase in (*together, "rename")),
        *(Fault(kind, "learner", phase) for kind in HOST_KINDS for phase in ("logprobs", "learn")),
        Fault("driver killed", "driver", "learn"),
        *(Fault(kind, "learner", phase) for kind, phase in zip(MEMORY_KINDS, ("learn", "logprobs"), strict=True)),
    ]


def on_sampling_ahead(random: Random) -> list[Fault]:
    """Whose responses are under way in all phases."""
    phases = tuple(phase for phase in PHASES if phase != "score")
    return [
        *(Fault("worker killed", role, phase) for role in ROLES for phase in phases),
        *(Fault("driver killed", "driver", phase) for phase in phases),
        *(Fault(kind, random.choice(ROLES), phase) for kind in HOST_KINDS for phase in ("sample", "learn")),
        *(Fault("worker and its successor killed", role, "sample") for role in ("rollout", "scorer")),
        Fault("checkpoint damaged", random.choice(list(DAMAGES)), "learn"),
        *(Fault("out of memory", role, phase) for role, phase in (("rollout", "sample"), ("scorer", "sample"))),
        Fault("out of memory", "learner", "learn"),
    ]


def on_partial_responses() -> list[Fault]:
    """Partial responses: whoever samples them is lost, or stays while others are."""
    return [
        *(Fault("worker killed", "rollout", phase) for phase in ("sample", "learn", "publish")),
        *(Fault(kind, "rollout", "sample") for kind in ("worker and its successor killed", "raylet killed")),
        *(Fault(kind, "rollout", "sample") for kind in ("link cut for long", "out of memory")),
        Fault("worker killed", "learner", "learn"),
        Fault("driver killed", "driver", "sample"),
    ]
