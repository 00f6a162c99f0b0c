"""`plumbob chat`: talk with a policy in the terminal, beside another where one is named."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from plumbob.console.exit_codes import OK
from plumbob.console.options import add_dtype, add_json, add_policy
from plumbob.core.errors import UserError

if TYPE_CHECKING:
    from plumbob.console.commands.result.chat_view import View
    from plumbob.driver.result.chat_policy import ChatPolicy

NAME = "chat"
ABOUT = "talk with a policy, several turns; in a pipe: lines in, responses out"
EXAMPLE = "plumbob chat runs/toy/ppo --beside"

COMMANDS = """/reset          forget the dialogue
/system TEXT    begin anew with a system message; without TEXT with none
/help           these lines
/quit           end, as Ctrl-D does; Ctrl-C ends a response, of two sides the turn"""


def add_options(parser: ArgumentParser) -> None:
    add_policy(parser)
    parser.add_argument(
        "--beside",
        metavar="BASE",
        nargs="?",
        const="",
        help="show another policy's responses too; without BASE what the run began from, or the adapter's base",
    )
    parser.add_argument("--system", metavar="TEXT", help="the system message that the dialogue begins with")
    parser.add_argument(
        "--prompt-template",
        metavar="TEXT",
        help=r"write each turn so, with \n for a new line, not by the chat template: 'Question: {prompt}\nAnswer:'",
    )
    parser.add_argument("--temperature", type=float, default=1.0, metavar="X", help="0: the likeliest; default: 1")
    parser.add_argument("--max-tokens", type=int, default=256, metavar="N", help="of one response; default: 256")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what is drawn; default: 0")
    add_dtype(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    if not 0 <= arguments.temperature < float("inf"):
        raise UserError(f"--temperature={arguments.temperature}: expected a number from 0")
    if arguments.max_tokens < 1:
        raise UserError(f"--max-tokens={arguments.max_tokens}: expected a number from 1")
    print("loading the model ...", file=sys.stderr, flush=True)
    from plumbob.models.quantization.forms import hush_bitsandbytes

    hush_bitsandbytes()
    from plumbob.configs.settings.data import prompt_template_fault
    from plumbob.console.commands.result.chat_view import open_view
    from plumbob.driver.result.chat_policy import ChatOptions, open_chat

    template = None if arguments.prompt_template is None else arguments.prompt_template.replace("\\n", "\n")
    fault = None if template is None else prompt_template_fault(template)
    if fault is not None:
        raise UserError(f"--prompt-template={template!r}: {fault}")
    options = ChatOptions(arguments.temperature, arguments.max_tokens, arguments.seed, arguments.dtype, template)
    policies = open_chat(arguments.policy, arguments.beside, options)
    for note in (note for policy in policies for note in policy.notes):
        print(note, file=sys.stderr)
    is_typed = sys.stdin.isatty()
    if is_typed:
        print(f"{' beside '.join(policy.name for policy in policies)}\n{COMMANDS}\n", file=sys.stderr)
    _reset(policies, arguments.system)
    view = open_view(arguments.json)
    ends_a_response = [KeyboardInterrupt] if is_typed else []
    for line in _typed_lines() if is_typed else sys.stdin:
        text = line.strip()
        if text == "/quit":
            break
        if text.startswith("/"):
            _command(text, policies)
        elif text:
            with suppress(*ends_a_response):
                _respond(text, policies, view)
    return OK


def _respond(text: str, policies: Sequence[ChatPolicy], view: View) -> None:
    """What a policy cannot take is reported, and the turn does not count."""
    before = [policy.dialogue.num_forgotten for policy in policies]
    try:
        with _together(policies):
            view.show(text, policies)
    except UserError as error:
        print(f"plumbob: {error}", file=sys.stderr)
    if before != [policy.dialogue.num_forgotten for policy in policies]:
        print("the dialogue has become too long: its oldest turns are forgotten", file=sys.stderr)


@contextmanager
def _together(policies: Sequence[ChatPolicy]) -> Iterator[None]:
    """What one of several sides refuses, or is interrupted at, none of them remembers: they hear the same turns."""
    before = [policy.dialogue for policy in policies]
    try:
        yield
    except (UserError, KeyboardInterrupt):
        if len(policies) > 1:
            for policy, dialogue in zip(policies, before, strict=True):
                policy.dialogue = dialogue
        raise


def _command(text: str, policies: Sequence[ChatPolicy]) -> None:
    name, _, rest = text.partition(" ")
    match name:
        case "/reset":
            _reset(policies, None)
        case "/system":
            try:
                _reset(policies, rest.strip())
            except UserError as error:
                print(f"plumbob: {error}", file=sys.stderr)
        case _:
            print(COMMANDS, file=sys.stderr)


def _reset(policies: Sequence[ChatPolicy], system: str | None) -> None:
    with _together(policies):
        for policy in policies:
            policy.reset(system)


def _typed_lines() -> Iterator[str]:
    """As a person types them, with a history, until Ctrl-D."""
    with suppress(ImportError):
        import readline  # noqa: F401 (input() uses it)
    while True:
        try:
            yield input("> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print("\n/quit or Ctrl-D ends the chat", file=sys.stderr)
