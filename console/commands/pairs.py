"""`plumbob pairs`: preference pairs out of a run's journal, best against worst response of each prompt."""

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from plumbob.console.exit_codes import OK
from plumbob.console.options import add_json, add_run

NAME = "pairs"
ABOUT = "write preference pairs out of a run's own responses: best against worst of each prompt, for dpo"
EXAMPLE = "plumbob pairs runs/rloo --margin 0.5"

PAIRS_FILE = "pairs.jsonl"
"""In the run's folder, where --output does not say otherwise."""


def add_options(parser: ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument(
        "--part", metavar="NAME", help="the part of the reward that ranks, as in the journal; default: the total score"
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=0.0,
        metavar="X",
        help="by how much the best must be above the worst; default: 0",
    )
    parser.add_argument(
        "--from-step", type=int, default=1, metavar="N", help="the first step whose responses count; default: 1"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help=f"default: {PAIRS_FILE} in the run's folder")
    add_json(parser)


def run(arguments: Namespace) -> int:
    from plumbob.core.atomic_files import write_atomically
    from plumbob.core.errors import UserError
    from plumbob.core.outside import from_outside
    from plumbob.driver.run_folder.folder import find_run
    from plumbob.rollout.journal import read_journal
    from plumbob.rollout.journal_pairs import best_against_worst, find_journal

    if not 0 <= arguments.margin < float("inf"):
        raise UserError(f"--margin={arguments.margin}: expected a number that is at least 0")
    folder = find_run(arguments.run)
    journal = find_journal(folder)
    rows = ((step, row) for step, row in read_journal(journal) if step >= arguments.from_step)
    found = best_against_worst(rows, arguments.part, arguments.margin)
    if not found.pairs:
        raise UserError(
            f"{journal}: of {found.num_prompts} prompts from step {arguments.from_step} on none has two responses that "
            f"end, say something and are {arguments.margin:g} or more apart: give a lower --margin or --from-step, or "
            "sample more responses to each prompt (online.samples_per_prompt)"
        )
    path = arguments.output or folder / PAIRS_FILE
    with from_outside(f"{path}: the pairs cannot be written", "give --output=FILE in a folder that can be written"):
        write_atomically(path, "".join(f"{json.dumps(pair._asdict(), ensure_ascii=False)}\n" for pair in found.pairs))
    policy = journal.parent / "policy"
    dpo = f"plumbob run dpo policy.model={policy if policy.is_dir() else 'FOLDER'} data.pairs={path} data.rendered=true"
    if arguments.json:
        from plumbob.console.display import print_json

        counts = {name: getattr(found, name) for name in ("num_prompts", "num_unusable", "num_close")}
        print_json({"pairs": str(path), "num_pairs": len(found.pairs), **counts, "next": dpo}, sys.stdout)
    else:
        print(f"{path}: {len(found.pairs)} pairs of {found.num_prompts} prompts")
        print(f"left out: {found.num_close} prompts without two responses that are so far apart")
        print(f"left out: {found.num_unusable} responses that were cut or are empty")
        print(f"next: {dpo}")
    return OK
