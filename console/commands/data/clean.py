"""`plumbob data clean`: files of data without duplicates, leaks and contradictions, pseudonyms for personal data."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from plumbob.console.commands.data.data_options import add_data_options, checks_of, reading_of
from plumbob.console.exit_codes import OK
from plumbob.core.errors import UserError

NAME = "clean"
ABOUT = "write files of data anew: without duplicates, leaks and contradictory labels, personal data by pseudonyms"
EXAMPLE = "plumbob data clean pairs.jsonl --heldout test.jsonl --personal --key key.txt --output cleaned"

REASONS = ("unread", "leak", "benchmark", "identical", "contradictory", "duplicate", "near-duplicate")


def add_options(parser: ArgumentParser) -> None:
    add_data_options(parser)
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        choices=REASONS[1:],
        help="rows that are otherwise left out; may be repeated",
    )
    parser.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="the secret that pseudonyms are made with; default: the variable PLUMBOB_PSEUDONYM_KEY",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("cleaned"), metavar="FOLDER", help="for the files; default: cleaned"
    )


def run(arguments: Namespace) -> int:
    from plumbob.data.audit.cleaned_files import clean_files
    from plumbob.data.personal.pseudonyms import pseudonym_key

    if arguments.key is not None and not arguments.personal:
        raise UserError(f"--key={arguments.key}: it is for pseudonyms, which --personal puts in place of personal data")
    cleaned = clean_files(
        arguments.files,
        arguments.output.expanduser(),
        arguments.heldout,
        checks_of(arguments),
        reading_of(arguments),
        arguments.keep,
        pseudonym_key(arguments.key) if arguments.personal else None,
    )
    if arguments.json:
        from plumbob.console.display import print_json

        print_json(cleaned.as_dict(), sys.stdout)
        return OK
    for entry in cleaned.outputs:
        print(f"{entry['path']}: {entry['num_rows']:,} rows")
    left_out = ", ".join(f"{num} {reason}" for reason, num in cleaned.left_out.items() if num)
    print(f"left out: {left_out or 'nothing'}")
    if cleaned.replaced is not None:
        replaced = ", ".join(f"{num} {kind}" for kind, num in cleaned.replaced.items())
        print(f"pseudonyms: {replaced or 'none'}")
    return OK
