"""How responses in a chat are shown (`View`): as they are made, side by side in a wide terminal, whole in a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Protocol

from plumbob.console.tables import printable

if TYPE_CHECKING:
    from rich.console import Console

    from plumbob.driver.result.chat_policy import ChatPolicy

SIDE_BY_SIDE = 80
"""Columns of a terminal that two responses stand beside one another in; narrower, one stands below the other."""


class View(Protocol):
    def show(self, text: str, policies: Sequence[ChatPolicy]) -> None:
        """Have every policy respond, one after the other. UserError as `ChatPolicy.respond`.

        A response that is interrupted has ended when this raises.
        """


def open_view(as_json: bool) -> View:
    """By where responses go: a terminal, a pipe, or a script."""
    if as_json:
        return _JsonView()
    return _TerminalView() if sys.stdout.isatty() else _PipeView()


class _JsonView:
    """An object a turn: the prompt, and name -> response."""

    def show(self, text: str, policies: Sequence[ChatPolicy]) -> None:
        responses = {policy.name: "".join(policy.respond(text)) for policy in policies}
        print(json.dumps({"prompt": text, "responses": responses}, ensure_ascii=False), flush=True)


class _PipeView:
    """Each response once it is whole; of several policies behind their names."""

    def show(self, text: str, policies: Sequence[ChatPolicy]) -> None:
        for policy in policies:
            name = f"{policy.name}: " if len(policies) > 1 else ""
            print(name + printable("".join(policy.respond(text))).strip(), flush=True)


class _TerminalView:
    def show(self, text: str, policies: Sequence[ChatPolicy]) -> None:
        from rich.console import Console

        console = Console(highlight=False)
        if len(policies) > 1 and console.width >= SIDE_BY_SIDE:
            self._show_columns(text, policies, console)
            return
        for policy in policies:
            if len(policies) > 1:
                console.print(policy.name, style="bold", markup=False)
            try:
                with closing(policy.respond(text)) as pieces:
                    for piece in pieces:
                        sys.stdout.write(printable(piece))
                        sys.stdout.flush()
            finally:
                print("\n")

    def _show_columns(self, text: str, policies: Sequence[ChatPolicy], console: Console) -> None:
        from rich.live import Live
        from rich.table import Table
        from rich.text import Text

        written = [""] * len(policies)

        def table() -> Table:
            shown = Table.grid(expand=True, padding=(0, 2))
            for _ in policies:
                shown.add_column(ratio=1)
            shown.add_row(*(Text(policy.name, style="bold") for policy in policies))
            shown.add_row(*(Text(printable(each).strip()) for each in written))
            return shown

        with Live(console=console, refresh_per_second=8, transient=True) as live:
            try:
                for index, policy in enumerate(policies):
                    with closing(policy.respond(text)) as pieces:
                        for piece in pieces:
                            written[index] += piece
                            live.update(table())
            finally:
                live.stop()
                console.print(table(), "")
