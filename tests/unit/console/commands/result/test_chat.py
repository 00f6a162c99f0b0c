"""`plumbob chat` in a pipe and on a terminal, with policies that answer at once."""

import io
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from plumbob.console.cli import main
from plumbob.console.commands.result.chat_view import open_view
from plumbob.core.errors import UserError
from plumbob.driver.result import chat_policy
from tests.support.terminal import Terminal


class EchoingPolicy:
    """Answers with its name and what it was asked, in two pieces; refuses "no"."""

    notes = ("a note",)
    num_forgotten = 0

    def __init__(self, name: str) -> None:
        self.name, self.begun = name, list[str | None]()

    def reset(self, system: str | None = None) -> None:
        self.begun.append(system)

    def answer(self, text: str) -> Iterator[str]:
        if text == "no":
            raise UserError(f"{self.name}: refused")
        yield f"{self.name} "
        yield f"hears {text}\x1b[31m"


@pytest.fixture
def policies(monkeypatch: pytest.MonkeyPatch) -> list[EchoingPolicy]:
    found = [EchoingPolicy("one"), EchoingPolicy("two")]
    monkeypatch.setattr(
        chat_policy, "open_chat", lambda policy, beside, options: found if beside is not None else found[:1]
    )
    return found


def test_lines_go_in_and_answers_come_out(
    policies: list[EchoingPolicy], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hi\n\n/system Be kind\nno\n/reset\nbye\n/quit\nnever\n"))
    assert main(["chat", "folder"]) == 0
    written = capsys.readouterr()
    # What would colour a terminal is shown as what it is not.
    assert written.out == "one hears hi\ufffd[31m\none hears bye\ufffd[31m\n"
    assert "a note" in written.err and "plumbob: one: refused" in written.err
    assert policies[0].begun == [None, "Be kind", None]


def test_a_script_gets_both_answers_as_one_object(
    policies: list[EchoingPolicy], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hi\n"))
    assert main(["chat", "folder", "--json", "--beside"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"prompt": "hi", "answers": {"one": "one hears hi\x1b[31m", "two": "two hears hi\x1b[31m"}}


@pytest.mark.parametrize(("columns", "are_beside"), [(100, True), (60, False)])
def test_a_wide_terminal_has_answers_side_by_side(columns: int, are_beside: bool, monkeypatch: Any) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    open_view(as_json=False).show("hi", [EchoingPolicy("one"), EchoingPolicy("two")])  # type: ignore[list-item]
    lines = terminal.getvalue().splitlines()
    assert any("one hears hi" in line and "two hears hi" in line for line in lines) is are_beside
    assert "\x1b[31m" not in terminal.getvalue()


@pytest.mark.parametrize("option", ["--temperature=-1", "--temperature=nan", "--max-tokens=0"])
def test_numbers_that_are_none_of_these_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "folder", option]) == 2
    assert f"{option.split('=')[0]}=" in capsys.readouterr().err
