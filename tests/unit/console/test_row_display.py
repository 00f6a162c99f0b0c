import io

import pytest
from rich.console import Console

from plumbob.console import row_display
from plumbob.console.row_display import print_rows
from plumbob.console.tables import escaped
from plumbob.data.rendered_rows import RenderedRow, RowPart

ROWS = (
    RenderedRow(
        "data.demonstrations",
        24,
        (RowPart("prompt", "<|user|>\nHi [b]", False, 5), RowPart("response", "Hello!<eos>", True, 1)),
    ),
    RenderedRow("data.text", 1, (RowPart("text", "a\\n" + "long " * 40, True),)),
)
PLAIN = (
    "row      data.demonstrations, one of 24, as the model sees it:\n"
    "  prompt (5 tokens)           <|user|>\\nHi [b]\n"
    "  response (learnt, 1 token)  Hello!<eos>\n"
    "row      data.text, its one, as the model sees it:\n"
    "  text (learnt)  a\\\\n" + "long " * 40 + "\n"
)


def test_what_is_learnt_is_said_without_colours() -> None:
    stream = io.StringIO()
    print_rows(ROWS, stream)
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert lines == [line.rstrip() for line in PLAIN.splitlines()]


def test_what_is_learnt_stands_in_green_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(
        row_display, "Console", lambda **options: Console(**options, force_terminal=True, color_system="standard")
    )
    print_rows(ROWS[:1], stream)
    assert "\x1b[32mHello!<eos>\x1b[0m" in stream.getvalue()
    assert "\x1b[2m<|user|>\\nHi [b]\x1b[0m" in stream.getvalue()


def test_control_characters_are_escaped() -> None:
    assert escaped("a\tb\r\n\x1b[31m\u2028é\\") == "a\\tb\\r\\n\\x1b[31m\\u2028é\\\\"
