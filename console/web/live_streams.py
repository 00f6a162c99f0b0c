"""Server-sent events: what a run has more than a page knows, from the page's cursors on (`LiveStreams`)."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.exceptions import HTTPException

from plumbob.console.web.run_answers import RunAnswers
from plumbob.console.web.run_files.run_content import strict_json
from plumbob.console.web.run_files.run_index import RunLocation
from plumbob.console.web.run_files.run_steps import events_after, steps_after

RUN_POLL_S = 1.0
LIST_POLL_S = 2.0
SILENT_S = 15.0
"""After so long a comment is sent, so that whoever stands between knows that somebody is there."""

MAX_STREAMS = 64
RETRY_MS = 2000
COUNTED_ON = ("seconds", "seconds_left", "cpu_hours", "gpu_hours")
"""Of a run's line, what changes while nothing happens."""


class LiveStreams:
    """Streams to pages; at most MAX_STREAMS at once."""

    def __init__(self, answers: RunAnswers) -> None:
        self._answers, self._num_streams = answers, 0

    def of_run(self, path: Mapping[str, str], query: Mapping[str, str], last_id: str | None) -> AsyncIterator[bytes]:
        """ "metrics", "events" and "run" of one run.

        Args:
            last_id: the `id` of the last event that the page had; its cursors go before those of the query.
        """
        location = self._answers.location(path)
        cursors = {"metrics": query.get("metrics", ""), "events": query.get("events", "")} | _cursors_of(last_id)
        stage = query.get("stage")
        steps_after(location, stage, cursors["metrics"])  # Refuses what is no stage or cursor before anything is sent.
        events_after(location, cursors["events"])
        self._check_room()
        return self._counted(self._of_run(location, stage, cursors))

    def of_all(self) -> AsyncIterator[bytes]:
        """ "runs" that changed since the stream began, and "gone": the ids of those that were taken away."""
        self._check_room()
        return self._counted(self._of_all())

    def _check_room(self) -> None:
        if self._num_streams >= MAX_STREAMS:
            raise HTTPException(503, f"{MAX_STREAMS} pages are open: close one")

    async def _counted(self, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self._num_streams += 1
        try:
            yield f"retry: {RETRY_MS}\n\n".encode()
            async for chunk in stream:
                yield chunk
        finally:
            self._num_streams -= 1

    async def _of_run(self, location: RunLocation, stage: str | None, cursors: dict[str, str]) -> AsyncIterator[bytes]:
        readers: dict[str, Callable[[], dict[str, Any]]] = {
            "metrics": lambda: steps_after(location, stage, cursors["metrics"]),
            "events": lambda: events_after(location, cursors["events"]),
        }
        known: dict[str, Any] = {}
        spoken = time.monotonic()
        while True:
            more = False
            for name, read in readers.items():
                try:
                    found = await asyncio.to_thread(read)
                except HTTPException:  # The stage's folder was taken away.
                    continue
                more |= found["more"]
                if found["cursor"] != cursors[name]:
                    cursors[name] = found["cursor"]
                    yield _event(name, found, cursors)
                    spoken = time.monotonic()
            line = await asyncio.to_thread(self._answers.line, location)
            if _lasting(line) != known:
                known = _lasting(line)
                yield _event("run", line, cursors)
                spoken = time.monotonic()
            if time.monotonic() - spoken > SILENT_S:
                yield b": still here\n\n"
                spoken = time.monotonic()
            await asyncio.sleep(0 if more else RUN_POLL_S)

    async def _of_all(self) -> AsyncIterator[bytes]:
        known: dict[str, dict[str, Any]] | None = None
        spoken = time.monotonic()
        while True:
            runs = (await asyncio.to_thread(self._answers.runs, {}, {}))["runs"]
            lasting = {run["id"]: _lasting(run) for run in runs}
            if known is not None:
                changed = [run for run in runs if known.get(run["id"]) != lasting[run["id"]]]
                gone = [run_id for run_id in known if run_id not in lasting]
                for name, found in (("runs", changed), ("gone", gone)):
                    if found:
                        yield _event(name, {"ids" if name == "gone" else "runs": found}, None)
                        spoken = time.monotonic()
            known = lasting
            if time.monotonic() - spoken > SILENT_S:
                yield b": still here\n\n"
                spoken = time.monotonic()
            await asyncio.sleep(LIST_POLL_S)


def _lasting(run: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in run.items() if name not in COUNTED_ON}


def _event(name: str, content: Any, cursors: Mapping[str, str] | None) -> bytes:
    head = f"event: {name}\n" + ("" if cursors is None else f"id: {json.dumps(cursors)}\n")
    return head.encode() + b"data: " + strict_json(content) + b"\n\n"


def _cursors_of(last_id: str | None) -> dict[str, str]:
    """None of what is no id of ours."""
    try:
        found = json.loads(last_id or "{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: found[name] for name in ("metrics", "events") if isinstance(found.get(name), str)}
