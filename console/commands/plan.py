"""`plumbob plan`: say which workers a run will need, where they fit and what its models will see; start nothing."""

import sys
from argparse import ArgumentParser, Namespace

from plumbob.console.exit_codes import FAILED, OK
from plumbob.console.options import add_config, add_json

NAME = "plan"
ABOUT = "say what a run will need, and start nothing"
EXAMPLE = "plumbob plan ppo policy.model=FOLDER reward.model=FOLDER data.prompts=prompts.jsonl"


def add_options(parser: ArgumentParser) -> None:
    add_config(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    from plumbob.configs.load_run import load_run

    config = load_run(arguments.config, arguments.overrides)
    from plumbob.console.display import print_json
    from plumbob.console.row_display import print_rows
    from plumbob.driver.api import plan

    planned = plan(config)
    if arguments.json:
        print_json(planned.as_dict(), sys.stdout)
    else:
        print("\n".join(planned.lines()))
        print_rows(planned.rows, sys.stdout)
    return OK if planned.fits else FAILED
