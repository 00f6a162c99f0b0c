"""Inside a sandbox: the tests of a program, which runs in another sandbox and is asked over a channel.

Names of the program's mean here what asks it (`Remote`), or a plain value. So `==` is Python's own, on a value that is
rebuilt here; a program that exits has not passed; and there is no test in the program's process that it could read.
"""

import ast
import builtins
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from plumbob.reward.programs.inside.channel import ChannelClosed, receive, send
from plumbob.reward.programs.inside.plain_values import decoded, encoded

PROGRAM_GONE = 3
"""Exit status where the program's process has ended: its other tests need another."""


class ProgramGone(BaseException):
    """The program's process has ended; no Exception, so that no test takes it for one of the program's."""


class UnsupportedTest(BaseException):
    """The test does what cannot be done with a program in another process."""


def run_tests(spec: Mapping[str, Any]) -> None:
    """Read `{"program", "tests", "first"}` from standard input; write a line of JSON for each test from `first` on."""
    asked = json.loads(sys.stdin.buffer.read())
    results = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silent, stream)
    tests: list[str] = asked["tests"]
    program = Program(spec["channel"])
    try:
        names = program.start(asked["program"])
    except (ProgramGone, Exception):
        return  # It does not run, and passes nothing.
    namespace = {name: value for name, value in names.items() if not is_ours(name, tests)}
    namespace |= {name: __import__(name) for name in sys.stdlib_module_names if is_module_in(name, tests)}
    for number in range(asked["first"], len(tests)):
        print(json.dumps({"test": number, **result_of(tests[number], namespace)}), file=results)
        if program.is_gone:
            sys.exit(PROGRAM_GONE)


def result_of(test: str, namespace: dict[str, Any]) -> dict[str, Any]:
    """Whether a test raises nothing."""
    try:
        exec(compile(test, "test.py", "exec", dont_inherit=True), namespace)
        return {"passed": True}
    except UnsupportedTest as error:
        return {"passed": False, "unsupported": str(error)}
    except BaseException:
        return {"passed": False}


def is_ours(name: str, tests: Sequence[str]) -> bool:
    """Whether a name of the program's is not taken from it: it is a module's, or one of Python's own.

    A program could pass by an `abs` of its own in `assert abs(f(2) - 4) < 1e-6`. One of Python's names is the program's
    only where the tests call it with literals alone, as in `assert sum(10, 15) == 6`: then it is what is tested.
    """
    if hasattr(builtins, name):
        return not all(_is_called_with_literals(name, test) for test in tests)
    return name in sys.stdlib_module_names and is_module_in(name, tests)


def is_module_in(name: str, tests: Sequence[str]) -> bool:
    """Whether tests use a name as that of a module: `math.isclose(...)`."""
    return any(
        isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name
        for test in tests
        if f"{name}." in test
        for node in _nodes(test)
    )


def _is_called_with_literals(name: str, test: str) -> bool:
    nodes = _nodes(test)
    tested = [node.func for node in nodes if isinstance(node, ast.Call) and all(map(_is_literal, node.args))]
    return all(node in tested for node in nodes if isinstance(node, ast.Name) and node.id == name)


def _nodes(test: str) -> list[ast.AST]:
    try:
        return list(ast.walk(ast.parse(test)))
    except SyntaxError:
        return []


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


class Program:
    """The program in the other sandbox."""

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self.is_gone = False

    def start(self, source: str) -> dict[str, Any]:
        """Run it; what its names mean. Raises what it raised, and ProgramGone."""
        return {name: self._decode(value) for name, value in self._asked(source).items()}

    def ask(self, number: int, operation: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """The result of an operation on one of its objects; arguments that it changed are changed here too."""
        given = [encoded(one, _number_of) for one in arguments]
        by_name = {name: encoded(one, _number_of) for name, one in named.items()}
        answer = self._asked({"object": number, "operation": operation, "arguments": given, "named": by_name})
        for argument, before, after in zip(arguments, given, answer["arguments"], strict=True):
            if before != after:
                _change(argument, self._decode(after))
        return self._decode(answer["result"])

    def _asked(self, question: Any) -> Any:
        if self.is_gone:
            raise ProgramGone
        try:
            send(self._channel, question)
            answer = receive(self._channel)
        except ChannelClosed:
            self.is_gone = True
            raise ProgramGone from None
        if "raised" in answer:
            raised = getattr(builtins, answer["raised"], RuntimeError)
            raise (raised if issubclass(raised, Exception) else RuntimeError)(answer["text"])
        return answer["value"]

    def _decode(self, content: Any) -> Any:
        return decoded(content, lambda number: Remote(self, number))


def _change(argument: Any, value: Any) -> None:
    """In place, as the function did it with its own."""
    match argument:
        case list() | bytearray():
            argument[:] = value
        case dict() | set():
            argument.clear()
            argument.update(value)


def _number_of(value: Any) -> int:
    if isinstance(value, Remote):
        return object.__getattribute__(value, "_number")
    raise UnsupportedTest(
        f"it gives the program a {type(value).__name__}, where only plain values and the program's own objects can be"
    )


class Remote:
    """An object of the program's, such as a function. It equals none but what its own program says, of its own kind."""

    def __init__(self, program: Program, number: int) -> None:
        self._program, self._number = program, number

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._program.ask(self._number, "call", arguments, named)

    def __getattr__(self, name: str) -> Any:
        return self._program.ask(self._number, "attribute", [name], {})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and self._program.ask(self._number, "eq", [other], {}) is True

    def __hash__(self) -> int:
        return hash(self._number)


def _forwarded(operation: str) -> Callable[..., Any]:
    def forwarded(self: Remote, *arguments: Any) -> Any:
        return self._program.ask(self._number, operation, arguments, {})

    return forwarded


# Not `in`, which Python makes of these: whether an item is there is not for the program to say.
for _operation in ("len", "iter", "next", "str", "repr", "bool", "getitem", "setitem", "delitem"):
    setattr(Remote, f"__{_operation}__", _forwarded(_operation))
