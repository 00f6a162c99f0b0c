"""`plumbob report`: write a run's report.html anew."""

import sys
from argparse import ArgumentParser, Namespace

from plumbob.console.exit_codes import OK
from plumbob.console.options import add_json, add_run

NAME = "report"
ABOUT = "write a run's report.html anew"
EXAMPLE = "plumbob report runs/toy"


def add_options(parser: ArgumentParser) -> None:
    add_run(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    from plumbob.console.report.page import write_report
    from plumbob.driver.run_folder.folder import find_run

    path = write_report(find_run(arguments.run))
    if arguments.json:
        from plumbob.console.display import print_json

        print_json({"report": str(path)}, sys.stdout)
    else:
        print(path)
    return OK
