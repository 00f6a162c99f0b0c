"""`plumbob data report`: what is in files of data, as one page: duplicates, leaks, personal data, labels."""

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from plumbob.console.commands.data.data_options import add_data_options, checks_of, reading_of
from plumbob.console.exit_codes import OK

NAME = "report"
ABOUT = "say what is in files of data: duplicates, leaks into what is measured, personal data, thin places, labels"
EXAMPLE = "plumbob data report pairs.jsonl --heldout test.jsonl --benchmark gsm8k.jsonl --personal"


def add_options(parser: ArgumentParser) -> None:
    add_data_options(parser)
    parser.add_argument(
        "--output", type=Path, default=Path(), metavar="FOLDER", help="where the page is written; default: here"
    )


def run(arguments: Namespace) -> int:
    from plumbob.console.report.data_report_page import write_data_page
    from plumbob.core.atomic_files import make_folder, write_atomically
    from plumbob.core.outside import from_outside
    from plumbob.data.audit.data_report import REPORT_JSON, report_files

    found = report_files(arguments.files, arguments.heldout, checks_of(arguments), reading_of(arguments)).as_dict()
    folder: Path = arguments.output.expanduser()
    with from_outside(f"{folder}: the report cannot be written", "give --output=FOLDER that can be written"):
        make_folder(folder)
        write_atomically(folder / REPORT_JSON, json.dumps(found, indent=2) + "\n")
        page = write_data_page(folder)
    if arguments.json:
        from plumbob.console.display import print_json

        print_json({"report": str(page), **found}, sys.stdout)
    else:
        from plumbob.console.tables import printable

        print(f"{found['num_rows']:,} rows, {found['duplicates']['num_prompts']:,} different prompts")
        for line in found["findings"] or ["nothing was found"]:
            print(f"- {printable(line)}")
        print(page)
    return OK
