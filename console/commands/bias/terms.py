"""`plumbob bias terms`: the pairs of terms by which groups are swapped, as a CSV file to be edited."""

import sys
from argparse import ArgumentParser, Namespace

from plumbob.console.exit_codes import OK

NAME = "terms"
ABOUT = "print the pairs of terms by which groups are swapped, with their sources, as CSV to be edited"
EXAMPLE = "plumbob bias terms"


def add_options(parser: ArgumentParser) -> None:
    """None: what is printed is a file."""


def run(arguments: Namespace) -> int:
    from plumbob.data.bias.term_pairs import term_pairs_csv

    sys.stdout.write(term_pairs_csv())
    return OK
