"""Environments as a user writes them: a file with a class, its settings, and what becomes of single turns."""

import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plumbob.configs.settings.programs.environments import EnvironmentSettings
from plumbob.rollout.environments.environment_host import EnvironmentHost
from plumbob.rollout.environments.environment_protocol import EnvironmentReply
from plumbob.rollout.environments.episode import Episode

BOUND_S = 30.0


def environment(folder: Path, body: str, file: str = "my_world.py", **settings: Any) -> EnvironmentSettings:
    """The settings of the class `World` in a file with that content."""
    (folder / file).write_text(textwrap.dedent(body))
    return EnvironmentSettings(source=f"{folder / file}:World", **settings)


def stepping(folder: Path, step: str, head: str = "", **settings: Any) -> EnvironmentSettings:
    """One whose `step` has that body, where `text` is the turn's."""
    body = "\n".join(
        [
            "import json, os, random, signal, sys, time",
            textwrap.dedent(head),
            "class World:",
            "    def reset(self, row, seed):",
            "        self.row, self.seed = row, seed",
            "    def step(self, turn):",
            "        text = turn['content']",
            textwrap.indent(textwrap.dedent(step).strip(), " " * 8),
        ]
    )
    return environment(folder, body, **settings)


def said(text: str) -> dict[str, Any]:
    """A turn of the policy's."""
    return {"role": "assistant", "content": text}


def replied(host: EnvironmentHost, episode: Episode, turn: Mapping[str, Any] | str) -> EnvironmentReply:
    """What becomes of a turn, waited for. Raises EnvironmentFailed."""
    episode.begin(said(turn) if isinstance(turn, str) else turn)
    return awaited(host, episode)


def awaited(host: EnvironmentHost, episode: Episode) -> EnvironmentReply:
    deadline = time.monotonic() + BOUND_S
    while (reply := episode.poll()) is None:
        assert time.monotonic() < deadline
        host.wait([episode], 1.0)
    return reply


def is_alive(pid: int) -> bool:
    """And no zombie, which waits for its parent alone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone_soon(*pids: int) -> bool:
    """Whether none of them is there any more, within the bound."""
    deadline = time.monotonic() + BOUND_S
    while any(map(is_alive, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
