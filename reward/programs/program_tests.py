"""What a response's program is tested by: the program in the response, and the tests in the prompt's row."""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from plumbob.data.records import RowError

FENCE = re.compile(r"^[ \t]*(```+|~~~+)[^\n`]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
"""A fenced block of code; one that is not closed goes to the end, as in an answer that was cut."""


class InputOutput(NamedTuple):
    """What a program reads, and what it is to print then."""

    given: str
    expected: str


def program_in(response: str) -> str:
    """The last fenced block of code, or all of it where there is none."""
    blocks = FENCE.findall(response)
    return blocks[-1][1] if blocks else response


def assertions_in(row: Mapping[str, Any], column: str) -> list[str]:
    """Code that asserts: a text, or a list of texts. Raises RowError."""
    found = _column(row, column)
    tests = [found] if isinstance(found, str) else found
    if not isinstance(tests, list | tuple) or not tests or not all(isinstance(test, str) for test in tests):
        raise RowError(f"the column {column} holds no text of asserts, nor a list of such")
    return list(tests)


def pairs_in(row: Mapping[str, Any], column: str) -> list[InputOutput]:
    """A list of `{"input", "output"}` or of pairs, or `{"inputs": [...], "outputs": [...]}`; or such as JSON.

    Raises RowError.
    """
    found = _column(row, column)
    try:
        content = json.loads(found) if isinstance(found, str) else found
        if isinstance(content, Mapping):
            content = list(zip(content["inputs"], content["outputs"], strict=True))
        pairs = [
            InputOutput(one["input"], one["output"]) if isinstance(one, Mapping) else InputOutput(*one)
            for one in content
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise RowError(f"the column {column} holds no list of inputs and outputs: {error}") from error
    if not pairs or not all(isinstance(text, str) for pair in pairs for text in pair):
        raise RowError(f"the column {column} holds no list of inputs and outputs, which are texts")
    return pairs


def prints_the_same(printed: str, expected: str) -> bool:
    """Line by line, without the white space at their ends and empty lines at the end of all."""
    return _lines(printed) == _lines(expected)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _column(row: Mapping[str, Any], column: str) -> Any:
    if row.get(column) is None:
        raise RowError(f"the row has no {column}; its columns: {', '.join(map(str, row)) or 'none'}")
    return row[column]
