"""`plan`: what a run needs against what its cluster has, and what would make it fit; nothing is started."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from plumbob.cluster.admission import joined_notes, plan_here, plan_there, what_cannot_be
from plumbob.cluster.connection import started_or_joined
from plumbob.cluster.nodes import this_machine
from plumbob.cluster.placement import Plan
from plumbob.cluster.resources import Expected, Host, memory_fits, resource_needs, total_bytes
from plumbob.configs.runs import AnyRun
from plumbob.core.errors import UserError
from plumbob.driver.planning.batch_arithmetic import arithmetic_of
from plumbob.driver.planning.cheapest_change import FittingChange, changed, cheapest_change
from plumbob.driver.planning.durations.expected_time import expected_time
from plumbob.driver.planning.durations.machine_rates import MachineRates
from plumbob.driver.planning.expected_memory import expected_memory
from plumbob.driver.planning.run_plan import GIB, RunPlan
from plumbob.driver.prepared_run import PreparedRun
from plumbob.driver.stages.stage import InputSizes

READS_INPUT_ANEW = ("data.", "rollout.max_tokens=")
"""How overrides begin with which other rows are learnt."""


def plan_prepared(config: AnyRun, prepared: PreparedRun, prepare_again: Callable[[AnyRun], PreparedRun]) -> RunPlan:
    """The plan of a run whose input has been read.

    Args:
        prepare_again: reads that of the same run with other settings; raises UserError where they are refused.

    Raises:
        UserError: the run would be refused whatever the cluster has; it says what would fit.
    """
    sizes = prepared.sizes()
    needs, expected = resource_needs(config), expected_memory(config, sizes.learnt)
    search = _Search(config, sizes, prepare_again)
    if config.cluster.address == "local":
        notes = prepared.notes
        try:
            found = plan_here(config.cluster, needs, expected)
        except UserError as error:
            raise UserError(_with_change(str(error), search.on(this_machine(config.cluster)))) from None
    else:
        with started_or_joined(config.cluster):
            notes = prepared.notes + joined_notes(config.cluster, needs, expected)
            found = plan_there(needs)
    is_short = memory_fits(needs, expected, found.hosts) is False
    change, gib = (search.on(found.hosts) if is_short else None), None
    if change is not None:
        other = changed(config, change.overrides)
        gib = total_bytes(resource_needs(other), search.expected(other, change.overrides)) / GIB
    return RunPlan(
        **_fields_of(found) | {"notes": notes, "rows": prepared.rows, "expected": expected},
        inputs=sizes.inputs,
        arithmetic=arithmetic_of(config, sizes),
        change=change,
        changed_gib=gib,
        time=expected_time(config, sizes, MachineRates()),
    )


class _Search:
    """Looks for settings with which a run fits, by the same expectation as its plan's."""

    def __init__(self, config: AnyRun, sizes: InputSizes, prepare_again: Callable[[AnyRun], PreparedRun]) -> None:
        self._config, self._sizes, self._prepare_again = config, sizes, prepare_again

    def on(self, hosts: Sequence[Host]) -> FittingChange | None:
        return cheapest_change(self._config, lambda run, overrides: self._fits(run, overrides, hosts))

    def expected(self, run: AnyRun, overrides: Sequence[str]) -> Expected:
        is_new = any(override.startswith(READS_INPUT_ANEW) for override in overrides)
        sizes = self._prepare_again(run).sizes() if is_new else self._sizes
        return expected_memory(run, sizes.learnt)

    def _fits(self, run: AnyRun, overrides: Sequence[str], hosts: Sequence[Host]) -> bool:
        needs, expected = resource_needs(run), self.expected(run, overrides)
        if what_cannot_be(needs, expected, hosts) is not None or not memory_fits(needs, expected, hosts):
            return False
        self._prepare_again(run)  # What is refused only when the input is read, fits nowhere.
        return True


def _with_change(refusal: str, change: FittingChange | None) -> str:
    if change is None:
        return refusal
    return f"{refusal}; it would fit with {' '.join(change.overrides)} ({'; '.join(change.costs)})"


def _fields_of(found: Plan) -> dict[str, Any]:
    return {field.name: getattr(found, field.name) for field in fields(found)}
