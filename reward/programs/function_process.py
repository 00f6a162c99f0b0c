"""The process in which a user's function runs, as its scorer sees it: bounded, started again, ended with its owner."""

import os
import shutil
import signal
import subprocess
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plumbob.configs.settings.programs.reward_programs import FunctionPart
from plumbob.core.errors import UserError
from plumbob.core.process_ends.after_death import AfterDeath
from plumbob.core.programs.function_source import digest_of_source, source_file
from plumbob.core.programs.message_pipe import MessagePipe, PipeClosed
from plumbob.core.programs.process_environment import command_of, kept_environment, starting
from plumbob.reward.programs import function_program
from plumbob.reward.programs.function_program import Call, time_out

START_TIMEOUT_S = 120.0
"""To start and to import the function, whatever that imports."""

GRACE_S = 1.0
"""Beyond its time, for what a function that is awaited needs to tell that it took too long."""

EXIT_WAIT_S = 5.0
"""How long a process that was killed may take to be gone."""


@dataclass(frozen=True)
class NoScore:
    """Why a response has no score.

    Attributes:
        reason: one line, whose words up to a colon are its kind: such are counted together.
        detail: the last lines of the user's traceback.
    """

    reason: str
    detail: tuple[str, ...] = field(default=())


class FunctionProcess:
    """Calls the function of a part in a process of its own, which ends with this object or with this process.

    Raises:
        UserError: the function cannot be imported, is no function or takes other arguments.
    """

    def __init__(self, part: FunctionPart, quiet: bool = False) -> None:
        self._part, self._quiet = part, quiet
        self._start()

    def ask(self, calls: Sequence[Call]) -> list[float | NoScore]:
        """What the function gives for each; never waits longer than its time for each call, or each batch of them."""
        size = self._part.batch_size if self._part.batched or self._is_async else 1
        answers: list[float | NoScore] = []
        for start in range(0, len(calls), size):
            answers += self._ask_together(calls[start : start + size])
        return answers

    def close(self) -> None:
        self._end()

    # --------------------------------------------------------------------------------------------------- one request

    def _ask_together(self, calls: Sequence[Call]) -> list[float | NoScore]:
        if self._process.poll() is not None:  # It ended by itself after its last answer, which is no call's fault.
            self._restart()
        deadline = time.monotonic() + self._part.timeout_s + (GRACE_S if self._is_async else 0.0)
        answers: dict[int, float | NoScore] = {}
        try:
            self._pipe.send(calls, deadline)
            while len(answers) < len(calls):
                message = self._pipe.receive(deadline)
                answers[message["call"]] = _answer(message)
        except TimeoutError:
            rest = NoScore(time_out(self._part.timeout_s)["failure"])
            self._restart()
        except PipeClosed:
            rest = NoScore(f"its process ended: {self._how_it_ended()}")
            self._restart()
        else:
            return [answers[number] for number in range(len(calls))]
        return [answers.get(number, rest) for number in range(len(calls))]

    def _how_it_ended(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            status = self._process.wait(EXIT_WAIT_S)
            return f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        return "it closed its pipe"

    # ------------------------------------------------------------------------------------------- its start and its end

    def _start(self) -> None:
        part = self._part
        self._digest = digest_of_source(part.function)
        module, _, name = part.function.rpartition(":")
        file = source_file(part.function)
        with starting(f"function={part.function}", "plumbob-function-") as scratch:
            variables = kept_environment(f"function={part.function}", "environment", part.environment)
            self._process = subprocess.Popen(
                command_of(function_program.__name__),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL if self._quiet else None,
                cwd=file.parent,
                env={**variables, "TMPDIR": str(scratch)},
                start_new_session=True,
            )
            after_death = AfterDeath([self._process.pid], scratch)
            self._end = weakref.finalize(self, _end, self._process, after_death, scratch)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._pipe = MessagePipe(self._process.stdin.fileno(), self._process.stdout.fileno())
        asked = {
            "place": str(file) if module.endswith(".py") else module,
            "name": name,
            "batched": part.batched,
            "timeout_s": part.timeout_s,
            "memory_bytes": int(part.memory_gib * 2**30),
        }
        deadline = time.monotonic() + START_TIMEOUT_S
        try:
            self._pipe.send(asked, deadline)
            found = self._pipe.receive(deadline)
        except TimeoutError:
            self._refuse(f"its import takes more than {START_TIMEOUT_S:g} s")
        except PipeClosed:
            self._refuse(f"its process ended as it was imported, {self._how_it_ended()}")
        if "refused" in found:
            self._refuse("\n".join([found["refused"], *(f"  {line}" for line in found.get("detail", []))]))
        self._is_async: bool = found["is_async"]

    def _refuse(self, why: str) -> Any:
        self._end()
        raise UserError(f"function={self._part.function}: {why}")

    def _restart(self) -> None:
        self._end()
        if digest_of_source(self._part.function) != self._digest:
            raise UserError(
                f"function={self._part.function}: its source has changed since the run began, and its process must be "
                f"started again: put it back and resume, or start a new run"
            )
        self._start()


def _answer(message: Mapping[str, Any]) -> float | NoScore:
    if "value" in message:
        return float(message["value"])
    return NoScore(message["failure"], tuple(message.get("detail", ())))


def _end(process: "subprocess.Popen[bytes]", after_death: AfterDeath, scratch: Path) -> None:
    """The process and all that it started in its session are killed, and its scratch folder is removed."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(EXIT_WAIT_S)
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        stream.close()
    after_death.cancel()
    shutil.rmtree(scratch, ignore_errors=True)
