"""A process beside the scorer in which a rule runs whose time no other way bounds: JSON schemas and mathematics.

    scorer                                        process (this file's `main`)
      |  {"rule", "opened_by", ...}           -->   opens the rule
      |  <--                          "ready"
      |  {"text", "expected"}                 -->   values it, within CPU seconds and memory
      |  <--     {"value"} or {"reason"}, or it ended: then the next text starts another

Signals as libraries use them bound nothing outside the main thread, nor long operations of C code. Here the system
itself ends the process after its seconds, whatever it does: CPU seconds, so that no score hangs on what else runs.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

from plumbob.configs.settings.rules.reward_rules import BoundedRule
from plumbob.core.errors import RunFailed
from plumbob.reward.rules.rule import NotScored

R = TypeVar("R", bound=BoundedRule)

Value = Callable[[str, Any], float]
"""(text, what it is compared with) -> its value; raises NotScored."""

MAX_MEMORY_GIB = 2.0
"""Of the process's addresses; what it uses is far less."""

READY = "ready"


class BoundedProcess:
    """Values texts by a rule in a process of its own, which starts with the first.

    Args:
        opened_by: rule -> what values by it; a function of a module, which the process imports with what that imports.
    """

    def __init__(self, rule: R, opened_by: Callable[[R], Value]) -> None:
        self._rule: BoundedRule = rule
        self._places = {"settings": _place(type(rule)), "opened_by": _place(opened_by)}
        self._process: subprocess.Popen[bytes] | None = None

    def value(self, text: str, expected: Any) -> float:
        """The text's value.

        Raises:
            NotScored: it took too long, or failed.
            RunFailed: the process does not start.
        """
        if self._process is None:
            self._process = self._started()
        answer = _asked(self._process, {"text": text, "expected": expected})
        if answer is None:
            status = _ended(self._process)
            self._process = None
            is_late = status == -signal.SIGPROF
            took = f"took more than {self._rule.timeout_s:g} CPU seconds"
            raise NotScored(f"it {took}" if is_late else f"its process ended with status {status}")
        if "reason" in answer:
            raise NotScored(answer["reason"])
        return float(answer["value"])

    def _started(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # The run's variables, which may hold secrets, are none of its business.
            env={"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ.get("PATH", ""), "PYTHONHASHSEED": "0"},
        )
        weakref.finalize(self, _ended, process)
        if _asked(process, {"rule": self._rule.model_dump(mode="json"), **self._places}) != READY:
            raise RunFailed(
                f"the process of the reward's part {self._rule.label} did not start: it ended with "
                f"status {_ended(process)}; what it wrote stands above, or in the worker's log"
            )
        return process


def _place(thing: Any) -> list[str]:
    """Module and name by which another process finds it."""
    return [thing.__module__, thing.__qualname__]


def _named(place: list[str]) -> Any:
    module, name = place
    return getattr(import_module(module), name)


def _asked(process: "subprocess.Popen[bytes]", question: Any) -> Any:
    """Its answer; None where it has ended."""
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps(question).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        return None
    line = process.stdout.readline()
    return json.loads(line) if line.endswith(b"\n") else None


def _ended(process: "subprocess.Popen[bytes]") -> int:
    """Its exit status, once it is gone: it ends by itself where it has ended its answers, or else at the signal."""
    assert process.stdin is not None and process.stdout is not None
    if process.stdout.closed:
        return process.wait()
    try:
        process.stdin.close()
    except BrokenPipeError:
        pass
    finally:
        process.stdout.close()
    return process.wait()


# ------------------------------------------------------------------------------------------------------- in the process


def main() -> None:
    """Read a rule and then texts, a line each, and answer in lines; until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What libraries print must not stand among them.
    memory = int(MAX_MEMORY_GIB * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    given = json.loads(sys.stdin.readline())
    rule: BoundedRule = _named(given["settings"]).model_validate(given["rule"])
    value: Value = _named(given["opened_by"])(rule)
    _answer(answers, READY)
    for line in sys.stdin:
        question = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, rule.timeout_s)
        try:
            found: dict[str, float | str] = {"value": value(question["text"], question["expected"])}
        except NotScored as error:
            found = {"reason": str(error)}
        except MemoryError:
            found = {"reason": f"it needs more than {MAX_MEMORY_GIB:g} GiB of memory"}
        signal.setitimer(signal.ITIMER_PROF, 0)
        _answer(answers, found)


def _answer(answers: Any, found: Any) -> None:
    print(json.dumps(found), file=answers, flush=True)
