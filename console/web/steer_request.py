"""Steering from the page: the project's own command in a process of its own, since Ray is joined once per process."""

import asyncio
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException

STEER_S = 120.0
"""How long a command may take: it joins a Ray cluster, and asks the run."""

MAX_WORKERS = 10_000
MAX_MESSAGE = 4_000
HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,252}")


def steer_command(content: Any) -> list[str]:
    """The words of the command line that a request stands for, without the run. Raises HTTPException for no request."""
    match content:
        case {"action": "stop" | "save" as action}:
            return [action]
        case {"action": "scale", "rollout_workers": int(number)} if 1 <= number <= MAX_WORKERS and number is not True:
            return ["scale", "--rollout-workers", str(number)]
        case {"action": "leave", "host": str(host)} if HOST.fullmatch(host):
            return ["scale", "--leave", host]
        case {"action": "scale"}:
            raise HTTPException(400, f"rollout_workers: give a whole number from 1 to {MAX_WORKERS:,}")
        case {"action": "leave"}:
            raise HTTPException(400, "host: give the name or address of a host of the run")
        case _:
            raise HTTPException(400, 'action: expected "stop", "save", "scale" or "leave"')


class Steering:
    """One request at a time; the next is refused meanwhile."""

    def __init__(self) -> None:
        self._busy = asyncio.Lock()

    async def ask(self, folder: Path, words: Sequence[str]) -> str:
        """What the command says. Raises HTTPException with its message where it is refused, or takes too long."""
        if self._busy.locked():
            raise HTTPException(409, "another request is under way: wait for its answer, and ask again")
        async with self._busy:
            command = [sys.executable, "-m", "plumbob.console.cli", *words, str(folder)]
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=_environment(),
                start_new_session=True,
            )
            try:
                output, complaint = await asyncio.wait_for(process.communicate(), STEER_S)
            except TimeoutError:
                raise HTTPException(504, f"the run did not answer within {STEER_S:.0f} s: ask again later") from None
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if process.returncode == 0:
            return output.decode("utf-8", "replace").strip()[:MAX_MESSAGE]
        raise HTTPException(409, _message(complaint))


def _environment() -> Mapping[str, str]:
    return os.environ | {"PYTHONUNBUFFERED": "1"}


def _message(complaint: bytes) -> str:
    """What `plumbob` itself said, or the last line of what went wrong."""
    lines = complaint.decode("utf-8", "replace").strip().splitlines()
    own = [line.removeprefix("plumbob: ") for line in lines if line.startswith("plumbob: ")]
    return "\n".join(own or lines[-1:] or ["the command ended without a word"])[:MAX_MESSAGE]
