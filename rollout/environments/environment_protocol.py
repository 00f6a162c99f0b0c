"""What an environment is: the methods of the user's class (`Environment`), what it replies, and how it fails."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from plumbob.core.errors import RunFailed
from plumbob.data.texts.chat_text import Message


class Environment(Protocol):
    """A class of the user's, which imports nothing of ours. Each object is one episode; its methods may be `async`."""

    def reset(self, row: dict[str, Any], seed: int) -> list[Message] | None:
        """Begin the episode.

        Args:
            row: of the prompts' file, by its columns.
            seed: of all that is random in it: the same row and seed give the same episode.

        Returns:
            The messages that the policy's prompt is made of; None: the row's own prompt stands.
        """

    def step(self, turn: dict[str, Any]) -> dict[str, Any]:
        """What becomes of a turn of the policy's.

        Args:
            turn: `{"role": "assistant", "content": text}`, with `tool_calls` where there are any: a list of
                `{"id", "type": "function", "function": {"name", "arguments"}}`, the arguments as a dictionary.

        Returns:
            `messages` that follow the turn, such as a tool's result; `reward` of the turn (0); `done`, whether the
            episode ends here (False). Each may be left out.
        """


@dataclass(frozen=True)
class EnvironmentReply:
    """What becomes of one turn.

    Attributes:
        messages: what follows it; never the assistant's. Empty only where the episode ends.
        reward: of this turn, finite.
        is_done: whether the episode ends here.
    """

    messages: tuple[Message, ...]
    reward: float
    is_done: bool


class EnvironmentFailed(RunFailed):
    """An episode's environment did not do what it should; others are not touched by it.

    Attributes:
        reason: one line, whose words up to a colon are its kind: such are counted together.
        detail: the last lines of the user's traceback, or of what the episode printed.
    """

    def __init__(self, reason: str, detail: tuple[str, ...] = ()) -> None:
        super().__init__("\n".join([reason, *(f"  {line}" for line in detail)]))
        self.reason, self.detail = reason, detail


def episode_seed(run_seed: int, row: Mapping[str, Any]) -> int:
    """Below 2^31; decided by both: an opening that is asked for again is the same, wherever the row stands."""
    content = json.dumps([run_seed, row], sort_keys=True, default=str)
    return int.from_bytes(hashlib.sha256(content.encode(errors="surrogatepass")).digest()[:4], "big") >> 1
