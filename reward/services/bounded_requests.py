"""Requests that are given up after a time, whatever they wait for (BoundedRequests)."""

import asyncio
import threading
import weakref
from collections.abc import Mapping
from typing import Any

import httpx

END_WAIT_S = 5.0


class BoundedRequests:
    """Posts from any thread; each ends within its time, from the connection to the last byte of the answer.

    Times of a connection's single steps bound no answer that comes byte by byte. So each request is a task of an event
    loop, in a thread of its own, which can be given up at any point.
    """

    def __init__(self, headers: Mapping[str, str], max_connections: int) -> None:
        limits = httpx.Limits(max_connections=max_connections)
        self._client = httpx.AsyncClient(timeout=None, headers=dict(headers), limits=limits)
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=_run, args=(self._loop,), name="requests", daemon=True)
        thread.start()
        weakref.finalize(self, _end, self._loop, thread, self._client)

    def post(self, url: str, body: Any, timeout_s: float) -> httpx.Response:
        """The answer, of whatever status.

        Raises:
            TimeoutError: it is not there whole within the time.
            httpx.RequestError, httpx.InvalidURL: there is none.
        """
        call = asyncio.wait_for(self._client.post(url, json=body), timeout_s)
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread, client: httpx.AsyncClient) -> None:
    async def close() -> None:
        try:
            await client.aclose()
        finally:
            loop.stop()

    asyncio.run_coroutine_threadsafe(close(), loop)
    if threading.current_thread() is not thread:
        thread.join(END_WAIT_S)
