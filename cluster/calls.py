"""Bounded remote calls: timeouts, and errors that name the actor, what it was doing and the end of its log."""

import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, ObjectLostError, OutOfMemoryError, RayActorError, RayError, RayTaskError

from plumbob.cluster.failures import LearnersLost, RolloutsLost, WorkerFailed, WorkerLost
from plumbob.core.activities import activities
from plumbob.core.disk_errors import StorageFailed, storage_reason
from plumbob.core.errors import RunFailed, UserError, first_line
from plumbob.core.process_ends.crash_signals import crash_in
from plumbob.core.spans import spans

CALL_TIMEOUT = "cluster.call_timeout_s"
BOOT_TIMEOUT = "cluster.boot_timeout_s"

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

LOG_LINES = 12
"""Of a worker's log, what an error message shows."""

NUM_LOGS = 2
"""Of workers that are late together, whose logs are shown."""

LOG_BYTES = 16_384
"""At the end of a log, where these lines are looked for: it may be long, and so may a line."""

DEATH_KNOWN_S = 2.0
"""What a failure among ranks waits for the death of another: who loses a partner knows before Ray does."""


@dataclass(frozen=True)
class Actor:
    """A Ray actor with the name that people know it by, and where it writes its log.

    Attributes:
        log_start: bytes that an earlier actor of that name has left in the log.
    """

    name: str
    handle: Any
    log: Path
    log_start: int = 0


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
        RolloutsLost: what it was to be given is gone.
        StorageFailed: the disk that it wrote to is full or broken.
        WorkerLost: an actor died, its result was lost with its host, or it took longer than `timeout_s`.
        WorkerFailed: it failed otherwise.
    """
    with activities.during(f"{workers_in_words(calls[0].actor.name, len(calls))}: {doing}"):
        return _gather(calls, doing, timeout_s, setting)


def _gather(calls: Sequence[Call], doing: str, timeout_s: float, setting: str) -> list[Any]:
    by_result = {call.result: call for call in calls}
    results: dict[Any, Any] = {}
    began = time.monotonic()
    pending = list(by_result)
    while pending:
        ready, pending = ray.wait(pending, num_returns=1, timeout=max(began + timeout_s - time.monotonic(), 0.0))
        if not ready:
            late = [by_result[result].actor for result in pending]
            names = ", ".join(actor.name for actor in late)
            logs = "\n".join(last_lines(actor.log) for actor in late[:NUM_LOGS])
            raise WorkerLost(f"{names}: still {doing} after {timeout_s:.0f} s ({setting})\n{logs}")
        for result in ready:
            spans.record(by_result[result].actor.name, doing, began)
            results[result] = result_of(by_result[result], doing)
    return [results[call.result] for call in calls]


def gather_ranks(calls: Sequence[Call], doing: str, timeout_s: float, setting: str = CALL_TIMEOUT) -> list[Any]:
    """As `gather`, of ranks that work together: the loss of one is the loss of all.

    One that loses its partner in the middle of a collective fails in whatever way its library chooses, often before the
    partner's death is known: that death is what is told.
    """
    try:
        return gather(calls, doing, timeout_s, setting)
    except WorkerLost as error:
        raise LearnersLost(str(error), error.oom_killed, error.crash) from error
    except RolloutsLost as error:
        raise LearnersLost(str(error)) from error  # Other ranks are at work on theirs, and wait for this one's.
    except WorkerFailed as error:
        if len(calls) == 1:
            raise
        death = _death_among(calls, doing)
        if death is None:
            raise LearnersLost(str(error)) from error
        raise LearnersLost(str(death), death.oom_killed, death.crash) from error


def _death_among(calls: Sequence[Call], doing: str) -> WorkerLost | None:
    """The first death that comes to be known, if one does in a moment."""
    by_result = {call.result: call for call in calls}
    deadline = time.monotonic() + DEATH_KNOWN_S
    pending = list(by_result)
    while pending:
        ready, pending = ray.wait(pending, num_returns=1, timeout=max(deadline - time.monotonic(), 0.0))
        if not ready:
            return None
        try:
            result_of(by_result[ready[0]], doing)
        except WorkerLost as death:
            return death
        except (UserError, RunFailed):
            continue
    return None


def workers_in_words(name: str, count: int) -> str:
    """Such as "learner" or "3 rollout workers"; `name`: of the role, or of one of them."""
    role = name.partition("-")[0]
    noun = "rollout worker" if role == "rollout" else role
    return noun if count == 1 else f"{count} {noun}s"


def ended_among(results: Sequence[Any]) -> frozenset[Any]:
    """The calls that have a result by now, on whatever host, or have failed."""
    if not results:
        return frozenset()
    return frozenset(ray.wait(list(results), num_returns=len(results), timeout=0, fetch_local=False)[0])


def result_of(call: Call, doing: str) -> Any:
    """The result of a call that has ended; raises as `gather` does."""
    try:
        return ray.get(call.result)
    except RayTaskError as error:
        if isinstance(error.cause, UserError | RunFailed):
            raise error.cause from None
        if isinstance(error.cause, ObjectLostError):
            why = first_line(error.cause)  # Of what it was given: a result of its own is lost without its task's error.
            raise RolloutsLost(
                f"{call.actor.name}, {doing}: responses were lost with the host that had them: {why}"
            ) from error
        reason, last = storage_reason(error.cause), last_lines(call.actor.log)
        if reason is not None:
            raise StorageFailed(f"{call.actor.name} failed while {doing}: {reason}") from error
        hint = "; has its host the packages that the others have?" if isinstance(error.cause, ImportError) else ""
        raise WorkerFailed(f"{call.actor.name} failed while {doing}: {error.cause!r}{hint}\n{last}") from error
    except RayActorError as error:
        if error.actor_init_failed:
            reason = plain(str(error)).splitlines()[-1]
            raise WorkerFailed(
                f"{call.actor.name} failed as it began: {reason}\n{last_lines(call.actor.log)}"
            ) from error
        raise _death(call, doing, error) from error
    except OutOfMemoryError as error:
        raise _death(call, doing, error, oom_killed=call.actor.name) from error
    except RayError as error:
        raise _death(call, doing, error) from error


def _death(call: Call, doing: str, error: RayError, oom_killed: str | None = None) -> WorkerLost:
    """By its own log, which knows the signal; of what it says of that, the stack of C++ calls helps nobody."""
    log, start = call.actor.log, call.actor.log_start
    crash = crash_in(_end_of(log, start) or "")
    why = crash or next(iter(plain(str(error)).splitlines()), type(error).__name__)
    ending = last_lines(log) if crash is None else _shown(log, crash.before)
    signal = None if crash is None else crash.signal
    return WorkerLost(f"{call.actor.name} died while {doing}: {why}\n{ending}", oom_killed, signal)


def fetched(results: Sequence[Any], timeout_s: float) -> list[Any]:
    """Responses out of the store. RolloutsLost where one is gone, or has not come within `timeout_s`, CALL_TIMEOUT."""
    doing = "fetching responses"
    try:
        with activities.during(doing):
            found: list[Any] = ray.get(list(results), timeout=timeout_s)
    except GetTimeoutError as error:
        raise RolloutsLost(f"the driver: still {doing} after {timeout_s:.0f} s ({CALL_TIMEOUT})") from error
    except ObjectLostError as error:
        raise RolloutsLost(f"responses were lost with the host that had them: {first_line(error)}") from error
    return found


def wait_ignoring_results(results: Sequence[Any], timeout_s: float) -> None:
    """Wait a while for calls whose results nobody needs, whether they succeed or not."""
    ended, _ = ray.wait(list(results), num_returns=len(results), timeout=timeout_s)
    for result in ended:
        with suppress(RayError):  # Ray would print one that nobody has seen.
            ray.get(result)


def last_lines(log: Path) -> str:
    end = _end_of(log)
    return f"its log {log} cannot be read" if end is None else _shown(log, end)


def _end_of(log: Path, start: int = 0) -> str | None:
    """The last of what stands from byte `start` on; None where it cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - LOG_BYTES, start))
            return file.read().decode(errors="replace")
    except OSError:
        return None


def _shown(log: Path, end: str) -> str:
    lines = plain(end).splitlines()[-LOG_LINES:]
    return "\n".join([f"the end of {log}:", *(f"  {line}" for line in lines)])


def plain(text: str) -> str:
    """Without the terminal's colours, which Ray and vLLM write into files and messages too."""
    return ANSI.sub("", text).strip()


def wait_until(condition: Callable[[], bool], timeout_s: float, poll_s: float = 0.2) -> bool:
    """Whether the condition came true within the bound."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(poll_s)
    return True
