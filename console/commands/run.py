"""`plumbob run`: run the stages that a preset or a YAML file describes."""

from argparse import ArgumentParser, Namespace

from plumbob.console.foreground import run_in_foreground
from plumbob.console.options import add_config, add_json

NAME = "run"
ABOUT = "run the stages that CONFIG describes"


def add_options(parser: ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--resume", action="store_true", help="resume the run of that name, if it has begun")
    add_json(parser)


def run(arguments: Namespace) -> int:
    from plumbob.configs.load_run import load_run

    config = load_run(arguments.config, arguments.overrides, arguments.resume)
    from plumbob.driver.run_folder.folder import run_folder

    folder = run_folder(config)
    if arguments.resume:
        from plumbob.driver.api import run_or_resume as start
    else:
        from plumbob.driver.api import run as start
    return run_in_foreground(folder, arguments.json, lambda listener: start(config, listener))
