"""A page that stands alone in one file, and tables in it, for screens of every width."""

import re
from collections.abc import Iterable, Sequence
from html import escape

from plumbob.console.report.style import STYLE

POLICY = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
"""Whatever a model wrote: nothing runs, and nothing is loaded."""


def html_page(title: str, body: Iterable[str]) -> str:
    """The page with these parts, which are HTML; the title is text."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{POLICY}<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def html_table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are text."""
    head = "".join(f"<th>{escape(title)}</th>" for title in heading)
    lines = ["<tr>" + "".join(_cell(*pair) for pair in zip(heading, row, strict=True)) + "</tr>" for row in rows]
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _cell(title: str, text: str) -> str:
    """Its title stands beside it where the page is too narrow for a table; an interval stays in one line."""
    shown = re.sub(r"\[.*\]", r'<span class="interval">\g<0></span>', escape(text))
    return f'<td data-title="{escape(title)}">{shown and f"<span>{shown}</span>"}</td>'
