"""Inside a sandbox: a program whose functions somebody else calls, who sees what they give and nothing else of it.

The program is what is not trusted, so this process is not either: it has no test and no expected value in it, and all
that it can forge are its own answers.
"""

import builtins
import operator
import os
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from plumbob.reward.programs.inside.channel import receive, send
from plumbob.reward.programs.inside.plain_values import decoded, encoded

Message = dict[str, Any]

OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda target, *arguments, **named: target(*arguments, **named),
    "attribute": getattr,
    **{"len": len, "iter": iter, "next": next, "str": str, "repr": repr, "bool": bool, "eq": operator.eq},
    **{"getitem": operator.getitem, "setitem": operator.setitem, "delitem": operator.delitem},
}
"""What may be done with an object of the program's."""


def serve(spec: dict[str, Any]) -> None:
    """Run the program, then answer calls until nobody asks."""
    channel = spec["channel"]
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silent, stream)
    objects = Objects()
    namespace = ModuleType("program")
    sys.modules["program"] = namespace
    source = receive(channel)

    def run_program() -> Message:
        exec(compile(source, "program.py", "exec", dont_inherit=True), namespace.__dict__)
        named = {name: value for name, value in vars(namespace).items() if not name.startswith("__")}
        return {name: objects.encode(value) for name, value in named.items() if not isinstance(value, ModuleType)}

    _answer(channel, run_program)
    while True:
        _answer(channel, partial(objects.answer, receive(channel)))


def _answer(channel: int, made: Callable[[], Any]) -> None:
    try:
        message = {"value": made()}
        send(channel, message)
    except Exception as error:
        names = [kind.__name__ for kind in type(error).__mro__]
        known = next(name for name in names if isinstance(getattr(builtins, name, None), type))
        send(channel, {"raised": known, "text": str(error)[:1000]})


class Objects:
    """What of the program is no plain value, by number: it stays here."""

    def __init__(self) -> None:
        self._objects: list[Any] = []

    def encode(self, value: Any) -> Any:
        return encoded(value, self._kept)

    def _kept(self, value: Any) -> int:
        self._objects.append(value)
        return len(self._objects) - 1

    def answer(self, question: Message) -> Message:
        """Of `{"object", "operation", "arguments", "named"}`: the result, and the arguments, which may have changed."""
        target = self._objects[question["object"]]
        arguments = [decoded(one, self._objects.__getitem__) for one in question["arguments"]]
        named = {name: decoded(one, self._objects.__getitem__) for name, one in question["named"].items()}
        value = OPERATIONS[question["operation"]](target, *arguments, **named)
        return {"result": self.encode(value), "arguments": [self.encode(one) for one in arguments]}
