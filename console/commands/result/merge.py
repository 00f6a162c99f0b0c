"""`plumbob merge`: short for `plumbob export --merged`; sums of adapters are `plumbob adapters merge`'s."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from plumbob.console.commands.result.export_result import add_merging, write
from plumbob.console.options import add_json, add_policy

NAME = "merge"
ABOUT = "write an adapter and its base as one full model: short for export --merged"
EXAMPLE = "plumbob merge runs/toy/ppo car-answers-full"


def add_options(parser: ArgumentParser) -> None:
    add_policy(parser)
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to write, which is not there yet")
    add_merging(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    return write(arguments, merged=True, base_name=None, usage=None)
