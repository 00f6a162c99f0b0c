"""The part of a Ray head's dashboard that jobs go through, over real HTTP, with answers that a test chooses."""

import asyncio
import io
import json
import threading
import zipfile
from collections.abc import Callable
from typing import Any, Self

import ray
from aiohttp import web

JOB = "raysubmit_1"


class Dashboard:
    """Serves on a port of its own until the `with` ends.

    Attributes:
        streams: what each opening of the job's log sends, in order, before the connection is cut; the last stays open
            until the job has ended.
        status, exit_code: of the job, once every stream has been opened.
        handed_over: the request that started the job.
        packages: names of the files in each upload.
        sent: called after each piece of a stream.
        last_words: of the job, sent when somebody has been told that it has ended.
    """

    def __init__(self, streams: tuple[tuple[str, ...], ...] = ((),), version: str = ray.__version__) -> None:
        self.streams, self.version = streams, version
        self.status, self.exit_code = "SUCCEEDED", 0
        self.handed_over: dict[str, Any] = {}
        self.packages: list[list[str]] = []
        self.sent: Callable[[], None] = lambda: None
        self.last_words = ""
        self._told_the_end = asyncio.Event()
        self.tokens: set[str | None] = set()
        self._num_opened = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(30)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _serve(self) -> None:
        application = web.Application()
        application.add_routes(
            [
                web.get("/api/version", self._tell_version),
                web.get("/api/packages/{protocol}/{name}", self._has_package),
                web.put("/api/packages/{protocol}/{name}", self._take_package),
                web.post("/api/jobs/", self._take_job),
                web.get("/api/jobs/{job}", self._tell_job),
                web.get("/api/jobs/{job}/logs/tail", self._tail),
            ]
        )
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.address = "http://{}:{}".format(*self._runner.addresses[0])

    async def _tell_version(self, request: web.Request) -> web.Response:
        self.tokens.add(request.headers.get("Authorization"))
        return web.json_response({"version": "4", "ray_version": self.version, "ray_commit": "", "session_name": ""})

    async def _has_package(self, request: web.Request) -> web.Response:
        return web.Response(status=404)

    async def _take_package(self, request: web.Request) -> web.Response:
        self.packages.append(zipfile.ZipFile(io.BytesIO(await request.read())).namelist())
        return web.Response()

    async def _take_job(self, request: web.Request) -> web.Response:
        self.handed_over = json.loads(await request.text())
        return web.json_response({"job_id": JOB, "submission_id": JOB})

    async def _tell_job(self, request: web.Request) -> web.Response:
        ended = self._num_opened == len(self.streams)
        details = {"type": "SUBMISSION", "submission_id": JOB, "entrypoint": "", "message": "what Ray says"}
        if not ended:
            return web.json_response(details | {"status": "RUNNING"})
        self._told_the_end.set()
        return web.json_response(details | {"status": self.status, "driver_exit_code": self.exit_code})

    async def _tail(self, request: web.Request) -> web.WebSocketResponse:
        stream = self.streams[self._num_opened]
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for piece in stream:
            await socket.send_str(piece)
            self.sent()
        self._num_opened += 1
        if self._num_opened < len(self.streams):
            assert request.transport is not None
            request.transport.abort()
        elif self.last_words:
            await self._told_the_end.wait()
            await socket.send_str(self.last_words)
        return socket
