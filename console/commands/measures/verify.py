"""`plumbob verify`: train where the best policy is known, and print how near the trainers come."""

import os
import sys
from argparse import ArgumentParser, Namespace

from plumbob.console.exit_codes import FAILED, OK
from plumbob.console.options import add_json
from plumbob.console.tables import aligned
from plumbob.core.errors import UserError

NAME = "verify"
ABOUT = "train where the best policy is known, and say how near the trainers come"
EXAMPLE = "plumbob verify GRPO --seeds 1"


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("words", metavar="WORD", nargs="*", help="only rows with one of these in them, such as GRPO")
    parser.add_argument("--seeds", type=int, default=3, help="instances of each row (3)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once (one for each core)")
    add_json(parser)


def run(arguments: Namespace) -> int:
    from plumbob.console.display import print_json
    from plumbob.verify.measurements import bug_lines, line, matching_rows, measured

    rows = matching_rows(arguments.words)
    if not rows:
        raise UserError(f"no row has {' or '.join(arguments.words)} in it; `plumbob verify` runs them all")
    if min(arguments.seeds, arguments.jobs) < 1:
        raise UserError("--seeds and --jobs: expected 1 or more")
    results = []
    for result in measured(rows, arguments.seeds, arguments.jobs):
        results.append(result)
        if arguments.json:
            print_json(result.as_dict(), sys.stdout)
        else:
            print("  ".join(line(result)), file=sys.stderr)
    if not arguments.json:
        table = aligned([line(result) for result in sorted(results, key=lambda result: result.index)])
        print("\n".join([*table, *bug_lines(results)]))
    return OK if all(result.holds for result in results) else FAILED
