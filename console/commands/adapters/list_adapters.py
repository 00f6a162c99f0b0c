"""`plumbob adapters list`: the adapters of a library, one a line."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plumbob.console.commands.adapters.library_options import add_library, library_of
from plumbob.console.exit_codes import OK
from plumbob.console.options import add_json
from plumbob.console.tables import aligned, number, printable, stage_metrics

if TYPE_CHECKING:
    from plumbob.models.library.library_entry import LibraryEntry

NAME = "list"
ABOUT = "list the adapters of a library"
EXAMPLE = "plumbob adapters list"

TITLES = ["name", "task", "method", "rank", "parameters", "base", "scores"]

NUM_SCORES = 2
"""The most telling, which stand in the table; `show` has all."""


def add_options(parser: ArgumentParser) -> None:
    add_library(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    from plumbob.console.display import print_json

    library = library_of(arguments)
    entries = library.entries()
    if arguments.json:
        print_json({"library": str(library.folder), "adapters": [each.model_dump() for each in entries]}, sys.stdout)
    elif entries:
        print("\n".join(printable(line) for line in aligned([TITLES, *rows(entries)])))
    else:
        print(f"{library.folder}: no adapters; add one: plumbob adapters add RUN --name NAME --task TEXT")
    return OK


def rows(entries: Sequence[LibraryEntry]) -> list[list[str]]:
    """A line for each."""
    return [
        [
            each.name,
            each.task or "unknown",
            each.method,
            str(each.rank or ""),
            number(each.num_parameters),
            Path(each.base).name,
            ", ".join(" ".join(pair) for pair in list(stage_metrics(each.scores or {}).items())[:NUM_SCORES])
            or "unknown",
        ]
        for each in entries
    ]
