"""`plumbob adapters add`: copy the adapter of a run, or of a PEFT folder, into a library."""

import sys
from argparse import ArgumentParser, Namespace

from plumbob.console.commands.adapters.library_options import add_library, library_of
from plumbob.console.exit_codes import OK
from plumbob.console.options import add_json

NAME = "add"
ABOUT = "copy the adapter of a run, or of any PEFT folder, into the library"
EXAMPLE = "plumbob adapters add runs/sft --name sums --task 'sums in words'"


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "adapter", metavar="RUN_OR_FOLDER", help="a run's folder, its name below runs/, or a PEFT adapter's folder"
    )
    parser.add_argument("--name", required=True, metavar="NAME", help="what it is called in the library")
    parser.add_argument("--task", metavar="TEXT", help="what it was trained for, in words")
    add_library(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    """What the run's files know of it goes with it; the run, or the folder, stays as it is."""
    from plumbob.driver.run_folder.made_adapter import facts_of
    from plumbob.driver.run_folder.made_policy import find_adapter
    from plumbob.models.library.adding import add_adapter

    library, folder = library_of(arguments), find_adapter(arguments.adapter)
    added = add_adapter(library, folder, arguments.name, arguments.task, facts_of(folder))
    kept = library.folder_of(added.entry.name)
    if arguments.json:
        from plumbob.console.display import print_json

        print_json({"folder": str(kept), "left_out": added.left_out, **added.entry.model_dump()}, sys.stdout)
        return OK
    print(f"{kept}: added, from {folder}")
    if added.left_out:
        print(f"left out, being no part of a PEFT folder: {', '.join(added.left_out)}")
    return OK
