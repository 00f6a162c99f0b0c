"""`plumbob adapters show`: all that a library knows of an adapter."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from plumbob.console.commands.adapters.library_options import add_library, add_name, library_of
from plumbob.console.exit_codes import OK
from plumbob.console.options import add_json
from plumbob.console.tables import number, printable

if TYPE_CHECKING:
    from plumbob.models.library.library_entry import LibraryEntry

NAME = "show"
ABOUT = "show all that the library knows of an adapter"
EXAMPLE = "plumbob adapters show sums"


def add_options(parser: ArgumentParser) -> None:
    add_name(parser)
    add_library(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    library = library_of(arguments)
    entry, folder = library.entry(arguments.name), library.folder_of(arguments.name)
    if arguments.json:
        from plumbob.console.display import print_json

        print_json({"folder": str(folder), **entry.model_dump()}, sys.stdout)
        return OK
    facts = [("folder", str(folder)), *lines(entry)]
    width = max(len(name) for name, _ in facts)
    print("\n".join(printable(f"{name:{width}}  {fact}") for name, fact in facts))
    return OK


def lines(entry: LibraryEntry) -> list[tuple[str, str]]:
    """Each fact with its name, those that nobody knows too."""
    from plumbob.models.library.library_entry import UNKNOWN

    known = {name: UNKNOWN if value is None else value for name, value in dict(entry).items()}
    size = f"{number(entry.num_parameters)} parameters, {number(entry.num_bytes)} bytes"
    bits = UNKNOWN if entry.quantization is None else ", ".join(f"{n}={v}" for n, v in entry.quantization.items())
    return [
        ("task", known["task"]),
        ("method", f"{entry.method}, rank {entry.rank}" if entry.rank else entry.method),
        ("size", size),
        ("digest", entry.digest),
        ("base", entry.base),
        ("base digest", known["base_digest"]),
        ("base in few bits", bits or "no"),
        *_of_each("data", {key: f"{one.file or UNKNOWN} ({one.digest})" for key, one in (entry.data or {}).items()}),
        *_of_each("score", {name: number(value) for name, value in (entry.scores or {}).items()}),
        *_of_evaluations(entry),
        ("run", f"{known['run']} ({known['stage']})" if entry.run else UNKNOWN),
        ("trained", known["trained"]),
        ("source", entry.source),
        *(("part", f"{weight:g} x {name}") for name, weight in entry.parts.items()),
        ("added", entry.added),
    ]


def _of_evaluations(entry: LibraryEntry) -> list[tuple[str, str]]:
    """A line for each: what it scored, on what, against and by what, when."""
    from plumbob.models.library.library_entry import UNKNOWN

    found = []
    for each in entry.evaluations:
        scores = ", ".join(f"{name} {number(value)}" for name, value in each.scores.items())
        against = "" if each.baseline is None else f" against {each.baseline}"
        on = f"{each.prompts.file or UNKNOWN} ({each.prompts.digest})"
        found.append(("evaluated", f"{scores}; on {on}{against}, rewarded by {each.reward}, {each.when}"))
    return found


def _of_each(what: str, values: dict[str, str]) -> list[tuple[str, str]]:
    from plumbob.models.library.library_entry import UNKNOWN

    return [(f"{what} {name}", value) for name, value in values.items()] or [(what, UNKNOWN)]
