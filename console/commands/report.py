"""`plumbob report`: write a run's report.html anew."""

import sys
from argparse import ArgumentParser, Namespace

from plumbob.console.exit_codes import OK
from plumbob.console.options import add_json, add_run
from plumbob.core.errors import UserError

NAME = "report"
ABOUT = "write a run's report.html anew"
EXAMPLE = "plumbob report runs/toy"


def add_options(parser: ArgumentParser) -> None:
    add_run(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    from plumbob.console.report.page import REPORT_FILE, write_report
    from plumbob.core.outside import reason_of
    from plumbob.driver.run_folder.folder import find_run

    folder = find_run(arguments.run)
    try:
        path = write_report(folder)
    except OSError as error:
        raise UserError(
            f"{folder / REPORT_FILE}: cannot be written: {reason_of(error)}; make room there, or copy the run to where "
            f"you may write"
        ) from error
    if arguments.json:
        from plumbob.console.display import print_json

        print_json({"report": str(path)}, sys.stdout)
    else:
        print(path)
    return OK
