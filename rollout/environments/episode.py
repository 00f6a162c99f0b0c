"""One episode as its worker sees it (`Episode`): a turn goes out, a reply comes in, within bounds of time and size."""

import math
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, Protocol

from plumbob.configs.settings.programs.environments import EnvironmentSettings
from plumbob.core.programs.message_pipe import MessagePipe, PipeClosed
from plumbob.data.texts.chat_text import Message
from plumbob.rollout.environments.environment_protocol import EnvironmentFailed, EnvironmentReply
from plumbob.rollout.environments.replies import opening_of, reply_of

MAX_REPLY_BYTES = 4 * 2**20
"""Of all that comes of one turn."""

END_WAIT_S = 2.0
"""How long the end of a process that was killed, or that has closed its socket, is waited for."""


@dataclass(frozen=True)
class EpisodeEnd:
    """How an episode's process ended, and the last lines that it printed."""

    how: str
    printed: tuple[str, ...]


class EpisodeProcesses(Protocol):
    """What an episode asks of the host of its process. An end that it hears of, it sets as the episode's `end`."""

    def look(self) -> None:
        """Take in what there is of news; waits for nothing."""

    def request(self, what: Literal["end", "kill"], number: int) -> None: ...

    def await_end(self, episode: "Episode", wait_s: float) -> None:
        """Return once the episode has its end, or after that time."""


class Episode:
    """Made by `EnvironmentHost.open`; its first turn may begin at once.

    Attributes:
        number: the host's name for it.
        opening: what `reset` gave, once `poll` has seen that; None before, and where the row's own prompt stands.
        is_open: whether `reset` has answered.
        end: how its process ended; None while it runs, as far as is known.
    """

    def __init__(
        self, number: int, settings: EnvironmentSettings, channel: socket.socket, processes: EpisodeProcesses
    ) -> None:
        self.number, self._settings, self._channel, self._processes = number, settings, channel, processes
        self._pipe = MessagePipe(channel.fileno(), channel.fileno(), MAX_REPLY_BYTES)
        self._until = self._deadline = math.inf  # Until it is reset.
        self._waits_for_reply = self._is_closed = self.is_open = False
        self.opening: list[Message] | None = None
        self.end: EpisodeEnd | None = None

    def reset(self, row: Mapping[str, Any], seed: int) -> None:
        """Begin it; or another in its place, while no turn of it has begun."""
        now, settings = time.monotonic(), self._settings
        self._until, self._deadline = now + settings.episode_s, now + settings.timeout_s
        self.opening, self.is_open = None, False
        self._pipe.begin_sending({"row": dict(row), "seed": seed})
        self._send()

    def begin(self, turn: Mapping[str, Any], spelt: str | None = None) -> None:
        """Give the environment a turn of the policy's; `poll` gives its reply.

        Args:
            spelt: the turn's text with its control tokens, where it has some: a user's function finds calls in it.
        """
        if self._waits_for_reply or self._is_closed:
            raise ValueError("an episode takes one turn at a time, and none once it is closed")
        self._pipe.begin_sending({"turn": dict(turn), "spelt": turn["content"] if spelt is None else spelt})
        self._waits_for_reply = True
        if self.is_open:
            self._deadline = time.monotonic() + self._settings.timeout_s
        self._send()

    def poll(self) -> EnvironmentReply | None:
        """The reply to the turn where it has come; never waits for one.

        Raises:
            EnvironmentFailed: there will be none. The episode is closed then.
        """
        if self._is_closed:
            raise ValueError("the episode is closed")
        self._processes.look()
        try:
            self._pipe.is_sent()
            while (message := self._pipe.take()) is not None:
                reply = self._taken(message)
                if reply is not None:
                    return reply
        except PipeClosed as error:
            self._fail_as_ended(str(error))
        except EnvironmentFailed as error:
            self._fail(error.reason, error.detail)
        if self.end is not None:
            self._fail_as_ended("")
        self._check_time()
        return None

    def close(self) -> None:
        """End it: the environment's `close` is called in its process, for which nothing waits."""
        if not self._is_closed:
            self._close("end")

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    @property
    def is_past_its_time(self) -> bool:
        """Whether `episode_s` is over: whoever gives it turns gives no other. The turn that it has may end."""
        return time.monotonic() > self._until

    @property
    def deadline(self) -> float:
        """When `poll` raises if nothing comes, by the monotonic clock; infinite while nothing is asked."""
        return self._deadline

    @property
    def is_sending(self) -> bool:
        """Whether a part of a turn waits for room in the socket."""
        return self._pipe.is_sending

    def fileno(self) -> int:
        """The socket that becomes readable when something comes; -1 once it is closed."""
        return self._channel.fileno()

    # ---------------------------------------------------------------------------------------------------- what comes in

    def _send(self) -> None:
        """What goes at once; that the process has gone is told by `poll`."""
        with suppress(PipeClosed):
            self._pipe.is_sent()

    def _taken(self, message: dict[str, Any]) -> EnvironmentReply | None:
        match message:
            case {"failure": str(reason)}:
                detail = message.get("detail", [])
                lines = tuple(map(str, detail)) if isinstance(detail, list) else ()
                raise EnvironmentFailed(reason.partition("\n")[0] or "unknown error", lines)
            case {"opening": opening} if not self.is_open:
                self.opening, self.is_open = opening_of(opening), True
                self._deadline = time.monotonic() + self._settings.timeout_s if self._waits_for_reply else math.inf
                return None
            case {"reply": reply} if self.is_open and self._waits_for_reply:
                self._waits_for_reply, self._deadline = False, math.inf
                return reply_of(reply)
            case _:
                raise EnvironmentFailed("wrong message: its process sent what is no reply")

    def _check_time(self) -> None:
        if time.monotonic() >= self._deadline:
            method = "step" if self.is_open else "reset"
            self._fail(f"time-out: {method} took more than timeout_s={self._settings.timeout_s:g} s")

    def _fail_as_ended(self, sent: str) -> NoReturn:
        if sent:
            self._fail(f"wrong message: its process sent {sent}")
        self._processes.await_end(self, END_WAIT_S)
        self._fail("its process closed its socket" if self.end is None else f"its process ended: {self.end.how}")

    def _fail(self, reason: str, detail: tuple[str, ...] = ()) -> NoReturn:
        """With what the episode printed, where there is no traceback."""
        self._close("kill")
        if not detail:
            self._processes.await_end(self, END_WAIT_S)
        raise EnvironmentFailed(reason, detail or (() if self.end is None else self.end.printed))

    def _close(self, what: Literal["end", "kill"]) -> None:
        self._is_closed = True
        self._channel.close()
        self._processes.request(what, self.number)
