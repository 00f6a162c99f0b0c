"""`plumbob adapters rm`: remove an adapter from a library."""

import sys
from argparse import ArgumentParser, Namespace

from plumbob.console.commands.adapters.library_options import add_library, add_name, library_of
from plumbob.console.exit_codes import OK
from plumbob.console.options import add_json

NAME = "rm"
ABOUT = "remove an adapter from the library, without a question"
EXAMPLE = "plumbob adapters rm sums"


def add_options(parser: ArgumentParser) -> None:
    add_name(parser)
    add_library(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    library = library_of(arguments)
    folder = library.folder_of(arguments.name)
    library.remove(arguments.name)
    if arguments.json:
        from plumbob.console.display import print_json

        print_json({"removed": str(folder)}, sys.stdout)
    else:
        print(f"{folder}: removed")
    return OK
