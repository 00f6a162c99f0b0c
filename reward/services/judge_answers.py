"""What judges have answered and what it cost, kept in files (JudgeAnswers), so that no answer is paid for twice."""

import errno
import fcntl
import hashlib
import json
import os
import struct
import threading
import time
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plumbob.core.activities import activities
from plumbob.core.disk_errors import naming_file

MAX_KEPT = 100_000
"""Answers in memory; of more the oldest are forgotten."""

ANSWERS_FOLDER = "judge_answers"
"""Of a stage, below its folder."""

TURNS_FILE, TURN_POLL_S = "turns.lock", 0.1
"""A file of the folder without content: whoever asks a question holds a lock on the byte that its digest numbers."""

TOKEN_COUNTS = ("prompt_tokens", "completion_tokens")
"""What an answer costs: tokens that were read and written for it."""


@dataclass(frozen=True)
class Verdict:
    """What a judge answered to one question, and the tokens that it read and wrote for it.

    Attributes:
        choice: one of those that it was given; None where it gave none of them.
        fault: why there is no choice, for people.
    """

    choice: int | str | None
    prompt_tokens: int
    completion_tokens: int
    fault: str = ""


class JudgeAnswers:
    """Choices by the digests of their questions, of all scorers that share a folder.

    Each scorer adds to a file of its own, a line an answer, and reads those of the others: of scorers before it, which
    may have been replaced or have served the run before it was resumed, and of those beside it.

    Args:
        folder: where they are kept; None keeps them in memory alone.
        part: of the reward, by its name.
    """

    def __init__(self, folder: Path | None, part: str) -> None:
        self._folder, self._part = folder, part
        self._own = None if folder is None else folder / f"{uuid.uuid4().hex}.jsonl"
        self._read: dict[Path, int] = {}
        self._kept: OrderedDict[str, int | str] = OrderedDict()
        self._lock = threading.Lock()
        self._turns: int | None = None

    @contextmanager
    def turn(self, question: str, timeout_s: float) -> Iterator[int | str | None]:
        """Once no other scorer is asking this: what one of them was answered, or None, and then it is asked here.

        A scorer that dies lets others ask; one that takes longer than `timeout_s` is not waited for, as its host may be
        gone with the lock. Where the folder's file system has no locks, nobody waits.
        """
        if self._folder is None:
            yield None
            return
        file, byte = self._turns_file(), int(question[:15], 16)
        is_here = self._take_turn(file, byte, question, 0.0)
        if not is_here and self.get(question) is None:
            with activities.during(f"{self._part}: waiting for another scorer that asks the same"):
                is_here = self._take_turn(file, byte, question, timeout_s)
        try:
            yield self.get(question)
        finally:
            if is_here:
                _lock_byte(file, fcntl.F_UNLCK, byte)

    def _take_turn(self, file: int, byte: int, question: str, timeout_s: float) -> bool:
        """Whether the lock could be had before there was an answer, or the time had passed."""
        deadline = time.monotonic() + timeout_s
        while self.get(question) is None:
            is_here = _lock_byte(file, fcntl.F_WRLCK, byte)
            self.look()
            if is_here or time.monotonic() >= deadline:
                return is_here
            time.sleep(TURN_POLL_S)
        return False

    def _turns_file(self) -> int:
        assert self._folder is not None
        with self._lock:
            if self._turns is None:
                with naming_file(self._folder / TURNS_FILE):
                    self._folder.mkdir(parents=True, exist_ok=True)
                    self._turns = os.open(self._folder / TURNS_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                weakref.finalize(self, os.close, self._turns)
            return self._turns

    def get(self, question: str) -> int | str | None:
        return self._kept.get(question)

    def add(self, question: str, verdict: Verdict) -> None:
        """The choice, where there is one, and in any case the cost."""
        with self._lock:
            if verdict.choice is not None:
                self._keep(question, verdict.choice)
            if self._own is None:
                return
            line = {"part": self._part, "question": question, **asdict(verdict)}
            with naming_file(self._own):
                self._own.parent.mkdir(parents=True, exist_ok=True)
                with self._own.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")

    def look(self) -> None:
        """Take in what other scorers have added meanwhile."""
        if self._folder is None:
            return
        with self._lock:
            for path in self._folder.glob("*.jsonl"):
                if path != self._own:
                    lines, self._read[path] = _lines_of(path, self._read.get(path, 0))
                    for line in lines:
                        if line["choice"] is not None:
                            self._keep(line["question"], line["choice"])

    def _keep(self, question: str, choice: int | str) -> None:
        self._kept[question] = choice
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)


def _lock_byte(file: int, kind: int, byte: int) -> bool:
    """Whether it could be had (or, of F_UNLCK, given back); True, too, where there are no locks.

    The lock is the open file's, not the process's (fcntl(2), open file description locks): it counts between two
    scorers of one process too, and ends with the last of them.
    """
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi", kind, os.SEEK_SET, byte, 1, 0))
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True


def question_digest(*content: Any) -> str:
    """Of all that decides an answer."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def judge_costs(folder: Path) -> dict[str, dict[str, int]]:
    """Part -> the tokens that were read and written for all of its answers that are kept there, and their number."""
    found: dict[str, dict[str, int]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in _lines_of(path, 0)[0]:
            cost = found.setdefault(line["part"], dict.fromkeys(("answers", *TOKEN_COUNTS), 0))
            cost["answers"] += 1
            for name in TOKEN_COUNTS:
                cost[name] += line[name]
    return found


def _lines_of(path: Path, start: int) -> tuple[Iterator[dict[str, Any]], int]:
    """The whole lines from a byte on, and where the next begins: one whose writer was killed within it stays unread."""
    with path.open("rb") as file:
        file.seek(start)
        content = file.read()
    end = content.rfind(b"\n") + 1
    return map(json.loads, content[:end].splitlines()), start + end
