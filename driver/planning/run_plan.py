"""The whole plan of a run (RunPlan): what it reads, computes and takes, where it runs, and what would make it fit."""

from dataclasses import asdict, dataclass, field
from typing import Any

from plumbob.cluster.placement import Plan
from plumbob.cluster.resources import DRIVER, on_hosts
from plumbob.driver.input_sizes.token_lengths import InputTokens, TokenLengths
from plumbob.driver.planning.batch_arithmetic import StageArithmetic, as_dict
from plumbob.driver.planning.cheapest_change import FittingChange
from plumbob.driver.planning.durations.run_time import RunTime

GIB = 2**30
BAR = 40
"""Letters of a histogram's longest bar."""


@dataclass(frozen=True)
class RunPlan(Plan):
    """A plan of where workers run, with what they will be given.

    Attributes:
        inputs: what there is of each input.
        arithmetic: of each stage.
        change: what would make it fit where the memory that is expected is not there; None where it fits, and where
            nothing that is known would.
        changed_gib: what all workers take together with that change.
        time: about how long it takes.
    """

    inputs: tuple[InputTokens, ...] = ()
    arithmetic: tuple[StageArithmetic, ...] = ()
    change: FittingChange | None = None
    changed_gib: float | None = None
    time: RunTime = field(default_factory=lambda: RunTime((), ()))

    def lines(self) -> list[str]:
        of_input = [f"data     {line}" for one in self.inputs for line in _of_input(one)]
        of_batches = [f"batches  {line}" for stage in self.arithmetic for line in stage.lines()]
        *plan, together, fits = super().lines()
        of_stages = [f"memory   {line}" for line in self._memory_by_stage()]
        of_time = [f"time     {line}" for line in self.time.lines()]
        return [*of_input, *of_batches, *plan, *of_stages, *of_time, together, fits, *self._of_change()]

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | {
            "inputs": [one.as_dict() for one in self.inputs],
            "batches": [as_dict(stage) for stage in self.arithmetic],
            "memory_by_stage_gib": self._stages(),
            "time": self.time.as_dict(),
            "change": None if self.change is None else asdict(self.change) | {"total_gib": self.changed_gib},
        }

    def _stages(self) -> dict[str, Any]:
        """Stage -> what each worker takes while it waits for others, and at its widest; and all together."""
        found: dict[str, Any] = {}
        for stage, roles in self.expected.items():
            whole = DRIVER + sum(need.count * roles[need.role].total for need in on_hosts(self.needs, roles))
            found[stage] = {
                "roles": {
                    role: {"waiting": one.resting / GIB, "widest": one.total / GIB} for role, one in roles.items()
                },
                "total": whole / GIB,
            }
        return found

    def _memory_by_stage(self) -> list[str]:
        """Of a run of one stage and one role the lines of the roles say all."""
        stages = self._stages()
        if sum(len(stage["roles"]) for stage in stages.values()) < 2:
            return []
        lines = ["by stage, in GiB: each worker as it waits, and at its widest; all with the driver and Ray"]
        for name, stage in stages.items():
            roles = ", ".join(
                f"{role} {one['waiting']:.2f} to {one['widest']:.2f}" for role, one in stage["roles"].items()
            )
            lines.append(f"  {name}: {roles}; in all {stage['total']:.2f}")
        return lines

    def _of_change(self) -> list[str]:
        if self.memory_fits is not False or not self.fits:
            return []
        if self.change is None:
            return [
                "change   no setting that is known to save memory makes it fit: take a smaller model, or a larger host"
            ]
        whole = "" if self.changed_gib is None else f": about {self.changed_gib:.3g} GiB in all"
        costs = "; ".join(self.change.costs)
        return [f"change   it would fit with {' '.join(self.change.overrides)}{whole} ({costs})"]


def _of_input(one: InputTokens) -> list[str]:
    heldout = f", {one.num_heldout:,} held out" if one.num_heldout else ""
    dropped = f"; {one.num_dropped:,} more are too long" if one.num_dropped else ""
    lines = [f"{one.setting}: {one.num_used:,} used{heldout}{dropped}"]
    for part in one.parts:
        lines += _of_part(part)
    return lines


def _of_part(part: TokenLengths) -> list[str]:
    limit = ""
    if part.limit is not None:
        over = f", {part.num_over:,} of them longer" if part.num_over else ", none longer"
        limit = f"; {part.limit}{over}"
    first, last = int(part.lengths.min()), int(part.lengths.max())
    lines = [
        f"  {part.name}: {first} to {last} tokens, half within {part.quantile(0.5)}, 95% within "
        f"{part.quantile(0.95)}, {int(part.lengths.sum()):,} in all{limit}"
    ]
    bins = part.histogram()
    width, most = len(str(bins[-1].last)), max(one.num_records for one in bins)
    for one in bins:
        bar = "#" * -(-BAR * one.num_records // most)
        lines.append(f"    {one.first:>{width}} to {one.last:>{width}}  {bar} {one.num_records:,}")
    return lines
