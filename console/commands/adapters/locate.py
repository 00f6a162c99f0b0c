"""`plumbob adapters locate`: find the bases of adapters, which were moved, by their digests."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from plumbob.console.commands.adapters.library_options import add_library, library_of
from plumbob.console.exit_codes import OK
from plumbob.console.options import add_json
from plumbob.core.errors import UserError

NAME = "locate"
ABOUT = "find bases that were moved, by their digests, and write where they are now"
EXAMPLE = "plumbob adapters locate --bases /models"


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="*", help="adapters of the library; default: all")
    parser.add_argument(
        "--bases",
        type=Path,
        required=True,
        action="append",
        metavar="FOLDER",
        help="where models are, in this folder or below it; may be given several times",
    )
    add_library(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    """A base that is where its adapter says is left alone; what is found is told before what is not."""
    from plumbob.models.library.moved_bases import locate_bases

    library = library_of(arguments)
    found = locate_bases(library, arguments.names or library.names(), arguments.bases)
    if arguments.json:
        from plumbob.console.display import print_json

        print_json({"bases": found}, sys.stdout)
    else:
        for name, base in found.items():
            print(f"{name}: {base or 'not found'}")
    lost = [name for name, base in found.items() if base is None]
    if lost:
        where = ", ".join(map(str, arguments.bases))
        raise UserError(f"{', '.join(lost)}: the base is neither where it was nor below {where}; give other --bases")
    return OK
