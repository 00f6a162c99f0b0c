"""The program in a response, by the tests in the prompt's row, as a scorer."""

import json
import os
import shutil
import socket
import tempfile
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

from plumbob.configs.settings.programs.reward_programs import CodePart
from plumbob.core.errors import RunFailed, UserError
from plumbob.core.process_ends.after_death import AfterDeath
from plumbob.data.records import RowError
from plumbob.reward.programs.inside.tester_program import PROGRAM_GONE
from plumbob.reward.programs.program_tests import (
    InputOutput,
    assertions_in,
    pairs_in,
    prints_the_same,
    program_in,
)
from plumbob.reward.programs.sandbox import Sandbox, SandboxRefused
from plumbob.reward.scorer import Score, ScoreRequest


class CodeScorer:
    """Runs each program in a sandbox. The value is 1 or 0, or the share of tests passed, which is the part `passed`.

    Raises:
        UserError: this host does not allow the sandbox.
    """

    def __init__(self, part: CodePart) -> None:
        self._part = part
        self._folder = Path(tempfile.mkdtemp(prefix="plumbob-code-"))
        self._folder.chmod(0o711)  # Another user's scratch is in it, where there are no namespaces.
        self._end = weakref.finalize(self, _remove, self._folder, AfterDeath((), self._folder))
        try:
            works = self._by_assertions("def double(x): return 2 * x", ["assert double(21) == 42"]) == [True]
        except SandboxRefused as error:
            self._end()
            raise UserError(
                f"kind=code: this host does not give programs a sandbox with isolation={part.isolation}: {error}; let "
                f"the scorers run where user namespaces are allowed or with the right CAP_SYS_ADMIN, or set "
                f"isolation=limits, which contains less (docs/rewards.md)"
            ) from error
        if not works:
            self._end()
            raise UserError(
                f"kind=code: a program of one line does not pass within timeout_s={part.timeout_s:g}, cpu_s="
                f"{part.cpu_s:g} and memory_gib={part.memory_gib:g}; give it more"
            )

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Scores in the order of the requests.

        Raises:
            RunFailed: the tests of one cannot be run, and `on_failure` is to stop then; or there is no sandbox now.
        """
        with ThreadPoolExecutor(self._part.programs_at_once) as pool:
            return list(pool.map(self._score, requests))

    def close(self) -> None:
        self._end()

    def _score(self, request: ScoreRequest) -> Score:
        program, column = program_in(request.response), self._part.column
        try:
            if self._part.form == "asserts":
                passed = self._by_assertions(program, assertions_in(request.row, column))
            else:
                passed = self._by_pairs(program, pairs_in(request.row, column))
        except RowError as error:
            if self._part.on_failure == "stop":
                raise RunFailed(
                    f"a response's program could not be tested: {error}; the prompt is ...{request.prompt[-80:]!r}; "
                    f"on_failure=NUMBER in its part of the reward scores such responses with that number"
                ) from error
            return Score(self._part.on_failure, {}, {"code": f"tests: {error}"})
        share = sum(passed) / len(passed)
        return Score(share if self._part.value == "share" else float(share == 1), {"passed": share})

    # --------------------------------------------------------------------------------------------------- two sandboxes

    def _by_assertions(self, program: str, tests: Sequence[str]) -> list[bool]:
        """Which of the tests pass. Where one ends the program's process, the next is asked of another."""
        deadline = time.monotonic() + self._part.timeout_s
        passed = [False] * len(tests)
        first = 0
        while first < len(tests) and time.monotonic() < deadline:
            found, is_gone = self._tested(program, tests, first, deadline)
            for result in found:
                if "unsupported" in result:
                    raise RowError(str(result["unsupported"]))
                passed[result["test"]] = bool(result["passed"])
            first = found[-1]["test"] + 1 if found and is_gone else len(tests)
        return passed

    def _tested(
        self, program: str, tests: Sequence[str], first: int, deadline: float
    ) -> tuple[list[dict[str, Any]], bool]:
        """What is known of the tests from `first` on, and whether the program's process ended on the last of these."""
        asked = json.dumps({"program": program, "tests": list(tests), "first": first}).encode()
        ours, theirs = socket.socketpair()
        with ours, theirs, _file(asked) as given, _file() as written, self._scratch() as one, self._scratch() as other:
            answers = Sandbox(self._part, "answers", one, DEVNULL, DEVNULL, theirs.fileno())
            theirs.close()  # So that the end of the one is seen by the other.
            try:
                testing = Sandbox(self._part, "tests", other, given, written, ours.fileno())
                ours.close()
                status = testing.wait(deadline)
            finally:
                answers.kill()
            lines = self._written(written).splitlines()
        return [json.loads(line) for line in lines], status == PROGRAM_GONE

    # ---------------------------------------------------------------------------------------------------------- scripts

    def _by_pairs(self, program: str, tests: Sequence[InputOutput]) -> list[bool]:
        deadline = time.monotonic() + self._part.timeout_s
        return [time.monotonic() < deadline and self._prints(program, test, deadline) for test in tests]

    def _prints(self, program: str, test: InputOutput, deadline: float) -> bool:
        ours, theirs = socket.socketpair()
        with ours, theirs, _file(test.given.encode()) as given, _file() as written, self._scratch() as scratch:
            running = Sandbox(self._part, "script", scratch, given, written, theirs.fileno())
            theirs.close()
            ours.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                ours.sendall(program.encode(errors="replace"))
            except OSError:
                running.kill()
                return False
            ours.close()
            status = running.wait(deadline)
            printed = self._written(written)
        return status == 0 and prints_the_same(printed, test.expected)

    def _written(self, file: int) -> str:
        return os.pread(file, self._part.max_file_mib * 2**20, 0).decode(errors="replace")

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _file(content: bytes = b"") -> Iterator[int]:
    """A file in memory that stands at its beginning."""
    file = os.memfd_create("plumbob")
    try:
        os.pwrite(file, content, 0)
        yield file
    finally:
        os.close(file)


def _remove(folder: Path, after_death: AfterDeath) -> None:
    after_death.cancel()
    shutil.rmtree(folder, ignore_errors=True)
