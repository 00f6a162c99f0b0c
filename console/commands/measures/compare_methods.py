"""`plumbob compare-methods`: a stage on the same data once with each method of fine-tuning, and what each costs."""

from __future__ import annotations

import math
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from plumbob.console.exit_codes import FAILED, OK
from plumbob.console.options import add_config, add_json
from plumbob.core.activities import activities
from plumbob.core.errors import UserError

if TYPE_CHECKING:
    from plumbob.driver.comparison.compared_methods import ComparedMethod
    from plumbob.driver.comparison.comparison import ComparedWork
    from plumbob.driver.comparison.comparison_row import Result
    from plumbob.driver.comparison.smallest_rank import SmallestRank

NAME = "compare-methods"
ABOUT = "run a stage of kind sft, dpo or kto with each method of fine-tuning, and say what each costs and brings"
EXAMPLE = "plumbob compare-methods sft policy.model=FOLDER data.demonstrations=rows.jsonl --methods lora full"


def add_options(parser: ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--methods", metavar="NAME", nargs="+", default=[], help="only these, such as lora full ia3")
    parser.add_argument(
        "--method",
        metavar="'NAME: a.b=c ...'",
        action="append",
        default=[],
        help="one of your own, such as 'lora-32: policy.tuning.rank=32'; may be given again",
    )
    parser.add_argument(
        "--rates",
        metavar="RATE",
        nargs="+",
        type=_above_0,
        default=[],
        help="try each method with each of these learning rates, and take its best; else that of CONFIG times the "
        "method's own factor",
    )
    parser.add_argument(
        "--smallest-rank",
        metavar="SHARE",
        nargs="?",
        type=_share,
        const=0.9,
        help="instead: the smallest rank of LoRA that reaches this share of full fine-tuning's gain (0.9)",
    )
    add_json(parser)


def run(arguments: Namespace) -> int:
    """The table alone goes to stdout, and progress beside it."""
    from plumbob.console.display import print_json
    from plumbob.console.report.comparison_page import comparison_table, write_comparison_page
    from plumbob.console.tables import aligned
    from plumbob.driver.comparison.compared_methods import chosen_methods

    methods = chosen_methods(arguments.methods, arguments.method)
    if arguments.smallest_rank is not None and (arguments.methods or arguments.method):
        raise UserError("--smallest-rank compares ranks with full fine-tuning: leave --methods and --method out")
    with activities.during("loading the libraries"):
        from plumbob.driver.comparison.comparison import compared_work
        from plumbob.driver.comparison.comparison_row import ComparisonRow
    work = compared_work(arguments.config, arguments.overrides, arguments.rates)
    results, rank = _measured(work, methods, arguments.smallest_rank)
    page = write_comparison_page(work.folder, work.base.stage, results)
    code = OK if any(isinstance(result, ComparisonRow) for result in results) else FAILED
    if arguments.json:
        found = {} if rank is None else {"smallest_rank": rank.as_dict()}
        print_json({"methods": [result.as_dict() for result in results], **found, "page": str(page)}, sys.stdout)
        return code
    table, notes = comparison_table(results)
    lines = aligned(table) if len(table) > 1 else []
    print("\n".join([*lines, *notes, *([] if rank is None else [rank.sentence()])]))
    print(f"curves: {page}")
    return code


def _measured(
    work: ComparedWork, methods: Sequence[ComparedMethod], share: float | None
) -> tuple[list[Result], SmallestRank | None]:
    from plumbob.console.display import choose_listener
    from plumbob.driver.comparison.comparison import opened_comparison
    from plumbob.driver.comparison.smallest_rank import smallest_rank

    with (
        choose_listener(False, sys.stderr) as listener,
        redirect_stdout(sys.stderr),  # Ray prints what happens to workers to whatever stdout is then.
        opened_comparison(work, listener) as comparison,
    ):
        if share is not None:
            rank = smallest_rank(comparison, share)
            return comparison.results, rank
        for method in methods:
            comparison.measure(method)
        return comparison.results, None


def _above_0(text: str) -> float:
    return _number(text, lambda value: 0 < value < 1e6, "a learning rate above 0")


def _share(text: str) -> float:
    return _number(text, lambda value: 0 < value <= 1, "a share above 0 and at most 1")


def _number(text: str, is_right: Callable[[float], bool], wanted: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not is_right(value):
        raise ArgumentTypeError(f"{text}: expected {wanted}")
    return value
