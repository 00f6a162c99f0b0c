"""The part `code`: the program in a response, by the tests of the prompt's row."""

from pathlib import Path

from plumbob.configs.settings.programs.reward_programs import CodePart
from plumbob.reward.programs.code_scorer import CodeScorer
from plumbob.reward.programs.program_tests import assertions_in, pairs_in
from plumbob.reward.scorer import Opening


def opening(part: CodePart, folder: Path | None) -> Opening:
    """It is checked by a program of one line, and a row by its tests."""
    read = assertions_in if part.form == "asserts" else pairs_in
    return Opening(
        check=lambda: CodeScorer(part).close(),
        open=lambda device: CodeScorer(part),
        check_row=lambda row: read(row, part.column),
    )
