"""`plumbob compare`: runs beside one another: settings that differ, and results that differ by more than the noise."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from plumbob.console.exit_codes import OK
from plumbob.console.options import add_json, add_runs
from plumbob.console.tables import aligned, interval, number, printable

if TYPE_CHECKING:
    from plumbob.core.noise.differences import MeasuredMetric
    from plumbob.driver.comparison.compared_runs import ComparedDifference, ComparedMetric, ComparedRuns

NAME = "compare"
ABOUT = "compare runs with the first: which settings differ, which results differ by more than the noise"
EXAMPLE = "plumbob compare runs/toy runs/toy-2"

MAX_LETTERS = 60
"""Of a setting's value."""

NUM_DIGEST = 8
"""Letters of a digest that are shown."""

METHODS = {
    "unpaired": "unpaired: on other prompts",
    "intervals": "by both intervals",
    "none": "",
}
"""How a difference was judged, in words; "paired" says over how many prompts."""


def add_options(parser: ArgumentParser) -> None:
    add_runs(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    from plumbob.driver.comparison.compared_runs import compare_runs
    from plumbob.driver.run_folder.folder import find_run

    found = compare_runs([find_run(each) for each in arguments.runs])
    if arguments.json:
        from plumbob.console.display import print_json

        print_json(found.as_dict(), sys.stdout)
    else:
        print("\n".join(printable(line) for line in lines(found)))
    return OK


def lines(found: ComparedRuns) -> list[str]:
    """What a person reads: first what was set, then what came of it."""
    shown = [f"settings that differ: {len(found.settings)}"]
    for key, values in found.settings.items():
        shown += [key, *_block(found.runs, [[_value(value)] for value in values])]
    for key, digests in found.inputs.items():
        shown += [f"{key}: what it holds differs", *_block(found.runs, [[(one or "")[:NUM_DIGEST]] for one in digests])]
    shown += ["", f"results, against {found.runs[0]}, with intervals of 95%"]
    for metric in sorted(found.metrics, key=_certainty):
        shown += [metric.name.replace("_", " "), *_block(found.runs, list(_cells(metric)))]
    if not found.metrics:
        shown.append("  none: these runs have neither a summary nor a journal")
    elif any(
        one is not None and one.difference.p is not None for metric in found.metrics for one in metric.differences
    ):
        shown += ["", "larger than the noise: by Holm's procedure, 5% over all differences above together"]
    return shown


def _certainty(metric: ComparedMetric) -> int:
    """What is larger than the noise first, what nothing is known of last."""
    known = [one for one in metric.differences if one is not None and one.difference.p is not None]
    return 0 if any(one.is_larger for one in known) else 1 if known else 2


def _block(runs: tuple[str, ...], cells: list[list[str]]) -> list[str]:
    return [f"  {line}" for line in aligned([[name, *row] for name, row in zip(runs, cells, strict=True)])]


def _cells(metric: ComparedMetric) -> Iterator[list[str]]:
    for value, difference in zip(metric.values, [None, *metric.differences], strict=True):
        yield [*_measured(value), *_compared(difference)]


def _measured(value: MeasuredMetric | None) -> list[str]:
    return ["", ""] if value is None else [number(value.value), interval(_as_list(value.ci95), number)]


def _compared(compared: ComparedDifference | None) -> list[str]:
    if compared is None:
        return ["", "", ""]
    found = compared.difference
    if found.p is None:
        return [_signed(found.value), "", "noise unknown"]
    verdict = "larger than the noise" if compared.is_larger else "within the noise"
    how = f"paired, {found.num_prompts} prompts" if found.method == "paired" else METHODS[found.method]
    bounds = None if found.low is None else [found.low, found.high]
    return [_signed(found.value), interval(bounds, number), f"{verdict} ({how})"]


def _signed(value: float) -> str:
    return f"+{number(value)}" if value > 0 else number(value)


def _as_list(bounds: tuple[float, float] | None) -> list[float] | None:
    return None if bounds is None else list(bounds)


def _value(value: Any) -> str:
    text = str(value)
    return text if len(text) <= MAX_LETTERS else f"{text[: MAX_LETTERS - 3]}..."
