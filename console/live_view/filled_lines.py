"""Words filled into lines as far as a terminal's width goes (`filled`)."""

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from plumbob.console.tables import printable

INDENT = "  "


def filled(words: Sequence[Text], width: int, style: str = "") -> list[RenderableType]:
    """Lines of whole words as far as they fit, indented below their stage; one that is too long by itself is cut."""
    lines: list[Text] = []
    for word in words:
        word.plain = printable(word.plain)
        if lines and lines[-1].cell_len + len(INDENT) + word.cell_len <= width:
            lines[-1].append(INDENT)
            lines[-1].append_text(word)
        else:
            lines.append(Text(INDENT, style, no_wrap=True, overflow="ellipsis").append_text(word))
    return [*lines]
