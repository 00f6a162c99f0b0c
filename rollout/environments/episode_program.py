"""What the process of one episode does: the user's class is called for each message that comes in on a socket.

`{"row", "seed"}` begins an episode and is answered by `{"opening"}`; each `{"turn"}` is answered by `{"reply"}`. Either
may be answered by `{"failure", "detail"}`, which is the last message. Where openings alone are wanted, another episode
is begun in the place of the one before.
"""

import asyncio
import inspect
import json
import numbers
import random
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from plumbob.core.programs.users_code import HEADER, failure_of, read_message

ToolCalls = Callable[[str], Any]


class EpisodeProgram:
    """Serves one episode until its other side closes the socket.

    Args:
        make: gives the user's object.
        tool_calls: the user's function that finds calls of tools in a turn's text, control tokens spelt; None leaves
            turns as they come.
    """

    def __init__(self, channel: socket.socket, make: Callable[[], Any], tool_calls: ToolCalls | None) -> None:
        self._channel, self._stream = channel, channel.makefile("rb")
        self._make, self._tool_calls = make, tool_calls
        self._runner = asyncio.Runner()

    def serve(self) -> None:
        environment = None
        try:
            while (message := read_message(self._stream)) is not None:
                if "row" in message:
                    _seed_generators(message["seed"])
                    environment = self._make()
                    self._write({"opening": self._called(environment.reset, message["row"], message["seed"])})
                else:
                    assert environment is not None, "the first message begins an episode"
                    self._write({"reply": self._called(environment.step, self._turn(**message))})
        except BaseException as error:
            with suppress(OSError):
                self._write(failure_of(error, __file__))
            return
        close = getattr(environment, "close", None)
        if callable(close):
            self._called(close)

    def _turn(self, turn: dict[str, Any], spelt: str) -> dict[str, Any]:
        calls = None if self._tool_calls is None else self._called(self._tool_calls, spelt)
        return {**turn, "tool_calls": calls} if calls else turn

    def _called(self, method: Callable[..., Any], *arguments: Any) -> Any:
        result = method(*arguments)
        return self._runner.get_loop().run_until_complete(result) if inspect.isawaitable(result) else result

    def _write(self, message: dict[str, Any]) -> None:
        content = json.dumps(message, default=_plain).encode()
        self._channel.sendall(HEADER.pack(len(content)) + content)


def _seed_generators(seed: int) -> None:
    """Those that have one state for all: a fork would have drawn it anew, or share its parent's."""
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed % 2**32)


def _plain(value: Any) -> Any:
    """Numbers of other types, such as numpy's, as Python's own."""
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if type(value).__name__ in ("bool", "bool_") and hasattr(value, "item"):
        return value.item()
    raise TypeError(f"wrong type: it gave a {type(value).__name__}, and a reply is made of plain values")
