"""What the commands over files of data share: the files, what is measured on, and how rows are read."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from plumbob.console.options import add_json
from plumbob.core.errors import UserError

if TYPE_CHECKING:
    from plumbob.configs.settings.data import ReadingSettings
    from plumbob.configs.settings.stewardship.data_checks import DataCheckSettings


def add_data_options(parser: ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", help="a file, a folder or a glob of files with rows")
    parser.add_argument(
        "--heldout", metavar="FILE", action="append", default=[], help="held-out rows of the same task; may be repeated"
    )
    parser.add_argument(
        "--benchmark",
        metavar="FILE",
        action="append",
        default=[],
        help="what a model is measured on later, such as GSM8K; may be repeated",
    )
    parser.add_argument(
        "--similarity",
        type=float,
        default=0.8,
        metavar="X",
        help="from which on texts are nearly the same, 0.5 to 1; default: 0.8",
    )
    parser.add_argument(
        "--ngram-words",
        type=int,
        default=13,
        metavar="N",
        help="words in a row that a row shares with a benchmark; default: 13",
    )
    parser.add_argument(
        "--column",
        metavar="NAME=COLUMN",
        action="append",
        default=[],
        help="what a column of the file is, such as prompt=my_question; may be repeated",
    )
    parser.add_argument("--personal", action="store_true", help="look for personal data too (plumbob[stewardship])")
    add_json(parser)


def checks_of(arguments: Namespace) -> DataCheckSettings:
    """UserError where a number is out of its bounds."""
    from plumbob.configs.settings.stewardship.data_checks import DataCheckSettings

    if not 0.5 <= arguments.similarity <= 1:
        raise UserError(f"--similarity={arguments.similarity:g}: expected a number from 0.5 to 1")
    if not 8 <= arguments.ngram_words <= 100:
        raise UserError(f"--ngram-words={arguments.ngram_words}: expected a whole number from 8 to 100")
    return DataCheckSettings(
        similarity=arguments.similarity,
        benchmarks=tuple(arguments.benchmark),
        ngram_words=arguments.ngram_words,
        personal="report" if arguments.personal else "off",
    )


def reading_of(arguments: Namespace) -> ReadingSettings:
    """UserError where a column is not given as NAME=COLUMN."""
    from plumbob.configs.settings.data import ReadingSettings

    columns = {}
    for given in arguments.column:
        name, sign, column = given.partition("=")
        if not sign or not name or not column:
            raise UserError(f"--column={given}: expected NAME=COLUMN, such as prompt=my_question")
        columns[name] = column
    return ReadingSettings(columns=columns)
