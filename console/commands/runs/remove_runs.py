"""`plumbob runs rm`: remove runs with all that is in their folders."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from plumbob.console.commands.runs.list_runs import size
from plumbob.console.exit_codes import OK
from plumbob.console.options import add_json, add_runs
from plumbob.console.typed_answer import typed_answer
from plumbob.core.errors import UserError

NAME = "rm"
ABOUT = "remove runs with all that is in their folders; a running one is refused"
EXAMPLE = "plumbob runs rm toy toy-2 --yes"


def add_options(parser: ArgumentParser) -> None:
    add_runs(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    add_json(parser)


def run(arguments: Namespace) -> int:
    """All are looked at before one is removed."""
    from plumbob.console.display import print_json
    from plumbob.driver.run_folder.folder import find_run
    from plumbob.driver.run_folder.listed_run import listed_run
    from plumbob.driver.run_folder.removal import check_removable, remove_run

    folders: list[Path] = list(dict.fromkeys(find_run(each) for each in arguments.runs))
    for folder in folders:
        check_removable(folder)
    found = [listed_run(folder) for folder in folders]
    if not arguments.yes:
        if not sys.stdin.isatty() or arguments.json:
            raise UserError("--yes: nobody can be asked here: give it to remove the runs without a question")
        for each in found:
            print(f"{each.folder}: {each.kind}, {each.state}, {size(each.num_bytes)}")
        what = "it" if len(found) == 1 else f"these {len(found)}"
        if typed_answer(f"remove {what} for good? [y/N] ").lower() != "y":
            print("nothing was removed")
            return OK
    for each in found:
        remove_run(each.folder)
        if not arguments.json:
            print(f"{each.folder}: removed, {size(each.num_bytes)}")
    if arguments.json:
        print_json({"removed": [str(each.folder) for each in found]}, sys.stdout)
    return OK
