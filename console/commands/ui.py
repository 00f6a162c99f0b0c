"""`plumbob ui`: pages that show runs while they run and afterwards, and steer them; or one run as a file."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from plumbob.console.exit_codes import OK

NAME = "ui"
ABOUT = "open pages that show runs, token by token, and steer them"
EXAMPLE = "plumbob ui runs --port 8275"


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "runs", metavar="RUNS_FOLDER", nargs="?", default="runs", help="a folder of runs, or one (runs)"
    )
    parser.add_argument("--port", type=int, default=8275, help="0 takes a free one, which is printed (8275)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="what to listen on; another than this machine needs a token"
    )
    parser.add_argument("--token", metavar="WORD", help="what steering must bear; one is made up where none is given")
    parser.add_argument("--export", metavar="FILE", help="write the run as one HTML file that needs no server, and end")


def run(arguments: Namespace) -> int:
    from plumbob.core.errors import UserError

    root = Path(arguments.runs)
    if arguments.export is not None:
        print(export(root, Path(arguments.export)))
        return OK
    if not 0 <= arguments.port < 2**16:
        raise UserError(f"--port={arguments.port}: a port is a number from 0, for a free one, to 65535")
    from plumbob.console.web.server import serve_ui

    serve_ui(root, arguments.host, arguments.port, arguments.token)
    return OK


def export(run: Path, file: Path) -> Path:
    """Write a run as one file. Raises UserError where the folder is no run, or the file cannot be written."""
    from plumbob.console.web.exported_run import exported_run
    from plumbob.console.web.run_answers import RunAnswers
    from plumbob.core.errors import UserError
    from plumbob.driver.run_folder.folder import find_run

    answers = RunAnswers(find_run(run))
    (run_id,) = answers.index.locations()
    try:
        file.write_bytes(exported_run(answers, run_id))
    except OSError as error:
        raise UserError(f"--export={file}: cannot be written: {error.strerror}; give another file") from error
    return file
