"""`plumbob push`: upload an exported folder to a hub, private unless asked otherwise."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from plumbob.console.exit_codes import OK
from plumbob.console.options import add_json
from plumbob.console.tables import aligned, size

NAME = "push"
ABOUT = "upload an exported folder to a hub, private by default"
EXAMPLE = "plumbob push car-answers team/car-answers"


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder that export wrote")
    parser.add_argument("repo", metavar="TEAM/NAME", help="the repository, made where it is not there; token: HF_TOKEN")
    parser.add_argument("--public", action="store_true", help="to one that all may read, made so where it is not there")
    parser.add_argument("--dry-run", action="store_true", help="say what would be uploaded, and send nothing")
    add_json(parser)


def run(arguments: Namespace) -> int:
    from plumbob.driver.result.hub_upload import plan_upload, upload

    planned = plan_upload(arguments.out, arguments.repo, arguments.public)
    kind = "public" if planned.is_public else "private"
    if not arguments.json:
        print(f"to {planned.repo}, {kind}: {len(planned.files)} files, {size(sum(planned.files.values()))}")
        print("\n".join(f"  {line}" for line in aligned([[name, size(num)] for name, num in planned.files.items()])))
        for note in planned.notes:
            print(note)
    sys.stdout.flush()
    address = None if arguments.dry_run else upload(planned)
    if arguments.json:
        from plumbob.console.display import print_json

        sent = {"repo": planned.repo, "visibility": kind, "files": planned.files, "notes": planned.notes}
        print_json(sent | {"address": address}, sys.stdout)
    else:
        print("nothing was sent" if address is None else f"sent: {address}")
    return OK
