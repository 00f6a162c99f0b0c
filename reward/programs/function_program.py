"""The program of the process in which a user's function runs: calls come in on a pipe, what it gave goes out.

The other side is `function_process`. The first message says which function it is, and is answered by what that takes,
or why it is refused; each further one is a list of calls, answered by a message for each of them, in any order.
"""

import asyncio
import inspect
import json
import numbers
import os
import resource
from collections.abc import Callable, Sequence
from typing import Any

from plumbob.core.programs.users_code import (
    HEADER,
    MAX_FLOAT32,
    Failure,
    Refused,
    failure_of,
    limit,
    load_function,
    read_message,
    users_lines,
)

Write = Callable[[dict[str, Any]], None]
Call = tuple[str, str, dict[str, Any]]
"""Prompt, response and row."""

Answer = Failure
"""Or `value`."""


def main() -> None:
    calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # What the function prints is for the log, not for the other side.

    def write(message: dict[str, Any]) -> None:
        content = json.dumps(message).encode()
        answers.write(HEADER.pack(len(content)) + content)
        answers.flush()

    asked = read_message(calls)
    if asked is None:
        return
    limit(resource.RLIMIT_DATA, asked["memory_bytes"])
    limit(resource.RLIMIT_CORE, 0)
    try:
        function = load_function(asked["place"], asked["name"])
        has_row = takes_row(function, asked["name"])
    except Refused as error:
        write({"refused": str(error)})
        return
    except BaseException as error:
        write({"refused": "cannot be imported", "detail": users_lines(error, __file__)})
        return
    answering = Answering(function, 3 if has_row else 2, asked["batched"], asked["timeout_s"])
    write({"takes_row": has_row, "is_async": answering.is_async})
    with asyncio.Runner() as runner:
        while (batch := read_message(calls)) is not None:
            answering.answer(batch, write, runner)


def takes_row(function: Callable[..., Any], name: str) -> bool:
    """Whether it is called with a row. A third argument that has a default and another name is none."""
    signature = inspect.signature(function)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    third = [one for one in signature.parameters.values() if one.kind in kinds][2:3]
    is_row = all(one.default is inspect.Parameter.empty or one.name in ("row", "rows") for one in third)
    for count in (3, 2) if is_row else (2,):
        try:
            signature.bind(*range(count))
        except TypeError:
            continue
        return count == 3
    raise Refused(f"{name}{signature} takes other arguments; expected {name}(prompt, response, row) or without the row")


# ------------------------------------------------------------------------------------------------------- its answers


class Answering:
    """Calls one function, whichever of its four forms it has: batched or not, awaited or not."""

    def __init__(self, function: Callable[..., Any], num_arguments: int, is_batched: bool, timeout_s: float) -> None:
        self._function, self._num_arguments = function, num_arguments
        self._is_batched, self._timeout_s = is_batched, timeout_s
        self.is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - that of an object, which may be `async def`
        )

    def answer(self, calls: Sequence[Call], write: Write, runner: asyncio.Runner) -> None:
        if self.is_async:
            runner.run(self._answer_together(calls, write))
        elif self._is_batched:
            _write_batch(answers_of(len(calls), self._function, *self._columns(calls)), write)
        else:
            for number, call in enumerate(calls):
                write({"call": number, **answer_of(self._function, *call[: self._num_arguments])})

    def _columns(self, calls: Sequence[Call]) -> list[list[Any]]:
        return [list(column) for column in zip(*calls, strict=True)][: self._num_arguments]

    async def _answer_together(self, calls: Sequence[Call], write: Write) -> None:
        async def one(number: int, call: Call) -> None:
            value, failure = await self._awaited(call[: self._num_arguments])
            write({"call": number, **(failure or answer_of(_same, value))})

        if self._is_batched:
            value, failure = await self._awaited(self._columns(calls))
            _write_batch([failure] * len(calls) if failure else answers_of(len(calls), _same, value), write)
        else:
            await asyncio.gather(*(one(number, call) for number, call in enumerate(calls)))

    async def _awaited(self, arguments: Sequence[Any]) -> tuple[Any, Answer | None]:
        """What it gave, or why it gave nothing."""
        try:
            async with asyncio.timeout(self._timeout_s) as bound:
                return await self._function(*arguments), None
        except TimeoutError as error:
            return None, time_out(self._timeout_s) if bound.expired() else failure_of(error, __file__)
        except BaseException as error:
            return None, failure_of(error, __file__)


def _write_batch(answers: Sequence[Answer], write: Write) -> None:
    for number, answer in enumerate(answers):
        write({"call": number, **answer})


def _same(value: Any) -> Any:
    return value


def time_out(timeout_s: float) -> Answer:
    return {"failure": f"time-out: it took more than {timeout_s:g} s"}


def answers_of(count: int, function: Callable[..., Any], *arguments: Any) -> list[Answer]:
    """Of a call for several responses at once."""
    try:
        values = list(function(*arguments))
    except BaseException as error:
        return [failure_of(error, __file__)] * count
    if len(values) != count:
        return [{"failure": f"wrong number: it gave {len(values)} values for {count} responses"}] * count
    return [answer_of(_same, value) for value in values]


def answer_of(function: Callable[..., Any], *arguments: Any) -> Answer:
    """What it gives as a finite float, or why there is none."""
    try:
        value = function(*arguments)
        if value is None:
            return {"failure": "no value: it gave None"}
        if not isinstance(value, numbers.Real):
            return {"failure": f"wrong type: it gave a {type(value).__name__}, and a score is a float"}
        number = float(value)
        return {"value": number} if abs(number) <= MAX_FLOAT32 else {"failure": f"not finite: it gave {number}"}
    except BaseException as error:
        return failure_of(error, __file__)
