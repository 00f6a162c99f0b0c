"""Rows as a model sees them, for a terminal or a pipe: a line a part, control characters escaped, the learnt marked."""

from collections.abc import Iterator, Sequence
from typing import TextIO

from rich.console import Console
from rich.text import Text

from plumbob.console.tables import escaped
from plumbob.data.rendered_rows import RenderedRow, RowPart


def print_rows(rows: Sequence[RenderedRow], stream: TextIO) -> None:
    """What is learnt stands in green where the terminal has colours, and is said to be learnt everywhere."""
    console = Console(file=stream, highlight=False, soft_wrap=True)
    for line in _lines(rows):
        console.print(line)


def _lines(rows: Sequence[RenderedRow]) -> Iterator[Text]:
    for row in rows:
        of = f"one of {row.num_records:,}" if row.num_records > 1 else "its one"
        yield Text(f"row      {row.setting}, {of}, as the model sees it:")
        width = max(len(_title(part)) for part in row.parts)
        for part in row.parts:
            yield Text.assemble(
                f"  {_title(part).ljust(width)}  ", (escaped(part.text), "green" if part.is_learnt else "dim")
            )


def _title(part: RowPart) -> str:
    notes = ["learnt"] if part.is_learnt else []
    notes += [] if part.num_tokens is None else [f"{part.num_tokens:,} token{'' if part.num_tokens == 1 else 's'}"]
    return f"{part.name} ({', '.join(notes)})" if notes else part.name
