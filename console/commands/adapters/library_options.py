"""Options that the commands over a library of adapters share."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plumbob.models.library.adapter_library import AdapterLibrary

LIBRARY = Path("adapters")
"""Where adapters are unless --library says otherwise."""


def add_library(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--library", type=Path, default=LIBRARY, metavar="FOLDER", help=f"the library; default: {LIBRARY}"
    )


def add_name(parser: ArgumentParser) -> None:
    """An adapter of the library."""
    parser.add_argument("name", metavar="NAME", help="the adapter's name in the library")


def library_of(arguments: Namespace) -> AdapterLibrary:
    from plumbob.models.library.adapter_library import AdapterLibrary

    return AdapterLibrary(arguments.library)
