"""Waits that end: every call to an actor has a bound, and a failure names the actor, what it did and its last words."""

import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from cluster.restarts import LearnersLost, WorkerFailed, WorkerLost
from configs.errors import RunFailed, UserError
from trainers.storage import StorageFailed, storage_reason

CALL_TIMEOUT = "cluster.call_timeout_s"
BOOT_TIMEOUT = "cluster.boot_timeout_s"

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

LOG_LINES = 12
"""Of a dead worker's log, what its error message shows."""


@dataclass(frozen=True)
class Actor:
    """A Ray actor with the name that people know it by, and where it writes its log."""

    name: str
    handle: Any
    log: Path


@dataclass(frozen=True)
class Call:
    """One remote call under way."""

    actor: Actor
    result: Any


def gather(calls: Sequence[Call], doing: str, timeout_s: float, setting: str = CALL_TIMEOUT) -> list[Any]:
    """Results in the order of the calls.

    The first failure ends the wait: other ranks of a group that lost one would wait for it for ever.

    Args:
        setting: the key that says `timeout_s`.

    Raises:
        UserError, RunFailed: what the actor itself raised.
        StorageFailed: the disk that it wrote to is full or broken.
        WorkerLost: an actor died, or took longer than `timeout_s`.
        WorkerFailed: it failed otherwise.
    """
    by_result = {call.result: call for call in calls}
    results: dict[Any, Any] = {}
    deadline = time.monotonic() + timeout_s
    pending = list(by_result)
    while pending:
        ready, pending = ray.wait(pending, num_returns=1, timeout=max(deadline - time.monotonic(), 0.0))
        if not ready:
            late = ", ".join(by_result[result].actor.name for result in pending)
            raise WorkerLost(f"{late}: still {doing} after {timeout_s:.0f} s ({setting}); logs: {logs(calls)}")
        for result in ready:
            results[result] = outcome(by_result[result], doing)
    return [results[call.result] for call in calls]


def gather_ranks(calls: Sequence[Call], doing: str, timeout_s: float, setting: str = CALL_TIMEOUT) -> list[Any]:
    """As `gather`, of ranks that work together: the loss of one is the loss of all.

    One that loses its partner in the middle of a collective fails in whatever way its library chooses, often before the
    partner's death is known.
    """
    try:
        return gather(calls, doing, timeout_s, setting)
    except WorkerLost as error:
        raise LearnersLost(str(error)) from error
    except WorkerFailed as error:
        if len(calls) == 1:
            raise
        raise LearnersLost(str(error)) from error


def outcome(call: Call, doing: str) -> Any:
    """The result of a call that has ended; raises as `gather` does."""
    try:
        return ray.get(call.result)
    except RayTaskError as error:
        if isinstance(error.cause, UserError | RunFailed):
            raise error.cause from None
        reason = storage_reason(error.cause)
        if reason is not None:
            raise StorageFailed(f"{call.actor.name} failed while {doing}: {reason}") from error
        raise WorkerFailed(f"{call.actor.name} failed while {doing}: {error.cause!r}; log: {call.actor.log}") from error
    except RayActorError as error:
        if error.actor_init_failed:
            reason = plain(str(error)).splitlines()[-1]
            raise WorkerFailed(f"{call.actor.name} failed as it began: {reason}; log: {call.actor.log}") from error
        raise WorkerLost(_death(call, doing, error)) from error
    except RayError as error:
        raise WorkerLost(_death(call, doing, error)) from error


def _death(call: Call, doing: str, error: RayError) -> str:
    why = next(iter(plain(str(error)).splitlines()), type(error).__name__)
    return f"{call.actor.name} died while {doing}: {why}\n{last_lines(call.actor.log)}"


def settle(results: Sequence[Any], timeout_s: float) -> None:
    """Wait a while for calls whose results nobody needs, whether they succeed or not."""
    ended, _ = ray.wait(list(results), num_returns=len(results), timeout=timeout_s)
    for result in ended:
        with suppress(RayError):  # Ray would print one that nobody has seen.
            ray.get(result)


def last_lines(log: Path) -> str:
    try:
        lines = plain(log.read_text(errors="replace")).splitlines()[-LOG_LINES:]
    except OSError:
        return f"its log {log} cannot be read"
    return "\n".join([f"the end of {log}:", *(f"  {line}" for line in lines)])


def plain(text: str) -> str:
    """Without the terminal's colours, which Ray and vLLM write into files and messages too."""
    return ANSI.sub("", text).strip()


def logs(calls: Sequence[Call]) -> str:
    return ", ".join(str(call.actor.log) for call in calls)


def wait_until(is_so: Callable[[], bool], timeout_s: float, poll_s: float = 0.2) -> bool:
    """Whether the condition came true within the bound."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(poll_s)
    return True
