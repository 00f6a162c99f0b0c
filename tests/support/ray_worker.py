"""A worker for the tests of groups, in a module that Ray's processes import fast: it needs no torch."""

import ctypes
import importlib
import mmap
import os
import sys
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plumbob.cluster.calls import LOG_LINES
from plumbob.cluster.control_actor import Control
from plumbob.core.errors import NotFinite, UserError
from plumbob.reward.scorer import ScoreError

TIMEOUT_S = 120.0


class BlockingWorker:
    """What the tests ask of a worker; `hold` blocks until `release` is called from another of its threads."""

    def __init__(self, log: Path) -> None:
        self._released = threading.Event()
        self._log = log

    def double(self, chunk: list[int]) -> list[int]:
        return [2 * item for item in chunk]

    def double_when_released(self, chunk: list[int]) -> list[int]:
        assert self._released.wait(TIMEOUT_S)
        return self.double(chunk)

    def hold(self) -> str:
        assert self._released.wait(TIMEOUT_S)
        return "held"

    def release(self) -> None:
        self._released.set()

    def fail(self, kind: str) -> None:
        if kind == "user":
            raise UserError("data.pairs: row 3 is empty")
        if kind == "run":
            raise NotFinite("the policy's loss is nan", (4, 7))
        if kind == "package":
            importlib.import_module("a_package_that_nobody_has")
        if kind == "disk":
            with Path("/dev/full").open("r+b", buffering=0) as full:
                full.write(b"never fits")
        raise KeyError("something unexpected")

    def score(self, chunk: list[float]) -> list[float]:
        """As a reward model of these numbers, which refuses those below 0."""
        broken = tuple(row for row, number in enumerate(chunk) if number < 0)
        if broken:
            raise ScoreError("a score is not finite", broken)
        return chunk

    def free_address(self) -> str:
        return "nowhere:1"

    def join(self, rank: object) -> None:
        """The ranks of these tests never speak to one another."""

    def close(self) -> None:
        """There is no engine to end."""

    def compute(self, batch: object, role: object, function: object) -> NDArray[np.float32]:
        return np.array([0.5], np.float32)

    def die(self) -> None:
        self._log.write_text("".join(f"line {number}\n" for number in range(LOG_LINES + 5)))
        os._exit(1)

    def crash(self) -> None:
        """By an instruction that no CPU has, as compiled code that was made for another one."""
        os.dup2(os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), 2)
        print("its last words", file=sys.stderr, flush=True)
        code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        code.write(b"\x0f\x0b")  # x86's ud2.
        ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()


class Writer(BlockingWorker):
    """Of a result, which it begins to write when it is released."""

    def export(self, folder: Path, final: Path) -> None:
        assert self._released.wait(TIMEOUT_S)
        folder.mkdir(parents=True, exist_ok=True)  # As libraries do.
        (folder / "model.bin").write_text(self._log.name)


class NeverBegins(Control):
    """A run's control actor where Ray cannot start one."""

    def __init__(self) -> None:
        raise OSError("no process can be started")
