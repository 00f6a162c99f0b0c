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
from plumbob.driver.result.chat_policy import ChatDialogue
from tests.support.terminal import Terminal


class EchoingPolicy:
    """Answers with its name and what it was asked, in two pieces; refuses "no", and system messages that are "no".

    Where it is called "two", Ctrl-C is pressed while it answers "wait".
    """

    notes = ("a note",)

    def __init__(self, name: str) -> None:
        self.name, self.begun, self.dialogue = name, list[str | None](), ChatDialogue()

    def reset(self, system: str | None = None) -> None:
        if system == "no" and self.name == "two":
            raise UserError("two: no place for a system message")
        self.begun.append(system)
        self.dialogue = ChatDialogue()

    def respond(self, text: str) -> Iterator[str]:
        if text == "no":
            raise UserError(f"{self.name}: refused")
        try:
            yield f"{self.name} "
            if text == "wait" and self.name == "two":
                raise KeyboardInterrupt
            yield f"hears {text}\x1b[31m"
        finally:
            self.dialogue = self.dialogue.followed_by("user", text).followed_by("assistant", self.name)

    @property
    def prompts(self) -> list[str]:
        return [turn["content"] for turn in self.dialogue.turns[::2]]


@pytest.fixture
def policies(monkeypatch: pytest.MonkeyPatch) -> list[EchoingPolicy]:
    found = [EchoingPolicy("one"), EchoingPolicy("two")]
    monkeypatch.setattr(
        chat_policy, "open_chat", lambda policy, beside, options: found if beside is not None else found[:1]
    )
    return found


def test_lines_go_in_and_responses_come_out(
    policies: list[EchoingPolicy], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hi\n\n/system Be kind\nno\n/reset\nbye\n/quit\nnever\n"))
    assert main(["chat", "folder"]) == 0
    written = capsys.readouterr()
    # What would colour a terminal is shown as what it is not.
    assert written.out == "one hears hi\ufffd[31m\none hears bye\ufffd[31m\n"
    assert "a note" in written.err and "plumbob: one: refused" in written.err
    assert policies[0].begun == [None, "Be kind", None]


def test_a_script_gets_both_responses_as_one_object(
    policies: list[EchoingPolicy], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hi\n"))
    assert main(["chat", "folder", "--json", "--beside"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"prompt": "hi", "responses": {"one": "one hears hi\x1b[31m", "two": "two hears hi\x1b[31m"}}


def test_both_sides_hear_the_same_turns(
    policies: list[EchoingPolicy], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first has answered when the second refuses, or Ctrl-C is pressed."""
    typed = iter(("hi", "wait", "no", "/system no", "bye", "/quit"))
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda _: next(typed))
    assert main(["chat", "folder", "--beside"]) == 0
    assert policies[0].prompts == policies[1].prompts == ["hi", "bye"]
    assert "plumbob: two: no place for a system message" in capsys.readouterr().err


@pytest.mark.parametrize("is_shown_beside", [True, False])
def test_an_answer_that_is_interrupted_on_a_terminal_has_ended(is_shown_beside: bool, monkeypatch: Any) -> None:
    """Also where the view is interrupted, between two pieces."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")

    def interrupted(text: str) -> str:
        if text == "one ":
            raise KeyboardInterrupt
        return text

    monkeypatch.setattr("plumbob.console.commands.result.chat_view.printable", interrupted)
    sides = [EchoingPolicy(name) for name in (("one", "two") if is_shown_beside else ("one",))]
    with pytest.raises(KeyboardInterrupt) as caught:
        open_view(as_json=False).show("hi", sides)  # type: ignore[arg-type]
    assert sides[0].prompts == ["hi"] and caught.tb is not None  # Whose frames would hold what has not ended.


def test_ctrl_c_ends_a_pipe(policies: list[EchoingPolicy], monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hi\nwait\nnever\n"))
    assert main(["chat", "folder", "--beside"]) == 130
    written = capsys.readouterr()
    assert "never" not in written.out and "plumbob: interrupted" in written.err


@pytest.mark.parametrize(("columns", "are_beside"), [(100, True), (60, False)])
def test_a_wide_terminal_has_responses_side_by_side(columns: int, are_beside: bool, monkeypatch: Any) -> None:
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
