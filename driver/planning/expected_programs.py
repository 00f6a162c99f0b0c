"""How much memory programs beside a worker take: a user's functions and environments, what a policy wrote, rules."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from plumbob.configs.settings.programs.reward_programs import CodePart, FunctionPart
from plumbob.configs.settings.rewards import RewardPart
from plumbob.configs.settings.rules.reward_rules import BoundedRule
from plumbob.configs.settings.workers import RolloutSettings
from plumbob.models.sizes.memory import GIB, MemoryEstimate

BEGUN, FORKED, CHECKED = (int(gib * GIB) for gib in (0.03, 0.01, 0.10))
"""Of a process of Python with what it needs of ours, of one that was forked from it, and of one with `math-verify` or
`jsonschema`, rounded up, before anything of the user's is imported. Resident were 21 MiB, and 80 and 25; the second is
a guess."""

SANDBOXES = 2
"""Of a response's program: its own, and that of its tests."""


class ProgramMemory(NamedTuple):
    """Of one process or several, in bytes: what they hold as they begin, and what they may allocate by their limits."""

    begun: int
    limit: int


def beside_programs(worker: MemoryEstimate, programs: Sequence[ProgramMemory]) -> MemoryEstimate:
    """A worker with programs beside it."""
    begun = sum(one.begun for one in programs)
    return replace(worker, programs=begun, beyond=sum(max(one.limit - one.begun, 0) for one in programs))


def programs_of_parts(parts: Sequence[RewardPart]) -> list[ProgramMemory]:
    """Of all that one scorer has beside it; services that it asks run elsewhere."""
    return list(_of_parts(parts))


def programs_of_episodes(rollout: RolloutSettings) -> list[ProgramMemory]:
    """The process that imports the environment, and those of as many episodes as a rollout worker has at once."""
    assert rollout.environment is not None
    limit = rollout.chunk_size * int(rollout.environment.memory_gib * GIB)
    return [ProgramMemory(BEGUN + rollout.chunk_size * FORKED, limit)]


def _of_parts(parts: Sequence[RewardPart]) -> Iterator[ProgramMemory]:
    for part in parts:
        match part:
            case FunctionPart(memory_gib=gib):
                yield ProgramMemory(BEGUN, int(gib * GIB))
            case CodePart(memory_gib=gib, programs_at_once=at_once, max_processes=most):
                yield ProgramMemory(at_once * SANDBOXES * BEGUN, at_once * most * int(gib * GIB))
            case BoundedRule():
                yield ProgramMemory(CHECKED, CHECKED)
