"""The live display on a real pseudo-terminal, read as an emulator of one shows it."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pyte
import pytest

RUNNING = """
import sys
from plumbob.console.display import choose_listener
from plumbob.trainers.metrics.step_record import ResponseSample, StepRecord

metrics = {"reward": 0.523, "reward_std": 0.41, "kl": 2.13, "entropy": 1.214, "answer_tokens_mean": 15.52}
metrics |= {"sampler_gap_max": 8.6e-6, "tokens_per_s": 3456.2, "alarm_kl": 1.0}
sample = ResponseSample("What does the Tarnis run on?", "\\x1b[2J\\x1b[31mIt runs on diesel.", 0.52)
with choose_listener(False, sys.stdout) as display:
    display.stage_began("ppo")
    display.stepped(StepRecord("ppo", 5, 30, metrics, {"sample": 2.0, "learn": 3.0}, sample))
    display.workers_changed({"rollout": {"sampling": 1, "idle": 1}, "learner": {"": 1}})
    display.notify("ppo", "step 5: KL 2.13 is above 2")
    print("a library's own line", file=sys.stderr)
    sys.stdin.readline()
"""


class EmulatedTerminal:
    """What a person sees of the process at the other end."""

    def __init__(self, descriptor: int, columns: int) -> None:
        self._descriptor, self.content = descriptor, b""
        self._screen = pyte.Screen(columns, 24)
        self._stream = pyte.ByteStream(self._screen)

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._screen.resize(24, columns)

    def shows(self, expected: list[str], timeout_s: float = 60.0) -> list[str]:
        """Wait until these lines are all that is on the screen, whatever its bar; gives them with it."""
        deadline = time.monotonic() + timeout_s
        while without_bar(lines := self._lines()) != expected:
            if time.monotonic() > deadline:
                assert without_bar(lines) == expected
            if select.select([self._descriptor], [], [], 0.1)[0]:
                got = os.read(self._descriptor, 65536)
                self.content += got
                self._stream.feed(got)
        return lines

    def _lines(self) -> list[str]:
        return [line.rstrip() for line in self._screen.display if line.strip()]


@contextmanager
def emulated(columns: int, **environment: str) -> Iterator[EmulatedTerminal]:
    ours, theirs = pty.openpty()
    terminal = EmulatedTerminal(ours, columns)
    terminal.resize(columns)
    variables = {**os.environ, "TERM": "xterm-256color", **environment}
    for name in ("COLUMNS", "LINES", *({"NO_COLOR"} - environment.keys())):
        variables.pop(name, None)
    command = [sys.executable, "-c", RUNNING]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=variables)
    os.close(theirs)
    try:
        yield terminal
        os.write(ours, b"\n")
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


PICTURE = {
    80: [
        "ppo: step 5: KL 2.13 is above 2",
        "a library's own line",
        "ppo  BAR  5/30  2 min 05 s left",
        "  reward 0.523 ± 0.410  KL 2.130  entropy 1.214  15.5 tokens  gap 8.6e-06",
        "  3,456 tok/s",
        f"  {'█' * 14}{'▓' * 10}  █ learn 3.0 s  ▓ sample 2.0 s",
        "  warning: kl since step 5",
        "  prompt    What does the Tarnis run on?",
        "  response  (0.520) \\x1b[2J\\x1b[31mIt runs on diesel.",
        "  2 rollout workers: 1 sampling, 1 idle  1 learner",
    ],
}
PICTURE[140] = [*PICTURE[80][:3], f"{PICTURE[80][3]}  3,456 tok/s", *PICTURE[80][5:]]


def without_bar(lines: list[str]) -> list[str]:
    """Without colours the part that is not done is blank."""
    return [re.sub(r"[━╸╺]+ *(?=  \d)", "BAR", line) for line in lines]


@pytest.mark.parametrize("columns", [80, 140])
def test_all_that_matters_is_on_the_screen_and_lines_of_others_stand_above(columns: int) -> None:
    with emulated(columns) as terminal:
        lines = terminal.shows(PICTURE[columns])
        assert len(lines[2]) == columns  # The bar takes what is left.
        assert b"\x1b[2J" not in terminal.content  # What the policy wrote does not clear the screen.
        assert re.search(rb"\x1b\[(?:\d+;)*3[0-7]m", terminal.content)  # In colours.


def test_it_follows_the_width_of_the_terminal_and_leaves_colours_out_where_told_to() -> None:
    with emulated(80, NO_COLOR="1") as terminal:
        terminal.shows(PICTURE[80])
        terminal.resize(140)
        assert len(terminal.shows(PICTURE[140])[2]) == 140
        assert not re.search(rb"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9\d)(?:;\d+)*m", terminal.content)
