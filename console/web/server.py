"""The server of `plumbob ui`: pages, answers, streams and steering as an ASGI app, and its listening (`serve_ui`)."""

import asyncio
import contextlib
import json
import mimetypes
import secrets
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from plumbob.console.web.exported_run import STATIC, exported_run, session
from plumbob.console.web.journal_views.column_cache import warm_up
from plumbob.console.web.live_streams import LiveStreams
from plumbob.console.web.page_modules import INDEX
from plumbob.console.web.request_guard import LOCAL_HOSTS, RequestGuard
from plumbob.console.web.run_answers import RunAnswers
from plumbob.console.web.run_files.run_content import strict_json
from plumbob.console.web.steer_request import Steering, steer_command
from plumbob.core.errors import UserError
from plumbob.core.host_network import listening_socket

MAX_BODY_BYTES = 64 * 2**10
GRACE_S = 2
"""How long an answer under way may take when the server ends: a stream would never end by itself."""

Handler = Callable[[Request], Awaitable[Response]]


def ui_app(root: Path, token: str, port: int, is_local: bool) -> ASGIApp:
    """The app over a folder of runs. Arguments but `root` are those of `RequestGuard`."""
    mimetypes.add_type("text/javascript", ".js")  # What a machine's own table says may be another.
    answers = RunAnswers(root)
    live, steering = LiveStreams(answers), Steering()
    of_run = "/api/runs/{run}"
    routes = [
        Route("/", _page, name="page"),
        Route("/api/runs", _json(answers.runs)),
        Route("/api/live", _stream(lambda request: live.of_all())),
        Route(of_run, _json(answers.run)),
        Route(f"{of_run}/metrics", _json(answers.steps)),
        Route(f"{of_run}/events", _json(answers.events)),
        Route(f"{of_run}/live", _stream(lambda request: _live_of_run(live, request))),
        Route(f"{of_run}/rollouts", _json(answers.rollouts)),
        Route(f"{of_run}/rollouts/{{step}}/group/{{group:path}}", _json(answers.group)),
        Route(f"{of_run}/rollouts/{{step}}/row/{{row}}", _json(answers.row)),
        Route(f"{of_run}/pairs", _json(answers.pairs)),
        Route(f"{of_run}/timeline", _json(answers.timeline)),
        Route(f"{of_run}/config", _json(answers.config)),
        Route(f"{of_run}/logs", _json(answers.logs)),
        Route(f"{of_run}/logs/{{name}}", _json(answers.log)),
        Route(f"{of_run}/export.html", _export(answers)),
        Route(f"{of_run}/steer", _steer(answers, steering), methods=["POST"]),
    ]
    app = Starlette(
        routes=[*routes], exception_handlers={HTTPException: _refused, UserError: _refused, Exception: _failed}
    )
    app.router.redirect_slashes = False
    guard = RequestGuard(app, token, port, is_local)
    app.router.routes.append(Route("/api/session", _session(answers, guard), methods=["GET"]))
    app.router.routes.append(Route("/api/session", _begin_session(guard), methods=["POST"]))
    if STATIC.is_dir():
        app.router.routes.append(Mount("/static", StaticFiles(directory=STATIC)))
    return guard


def serve_ui(root: Path, host: str, port: int, token: str | None) -> None:
    """Serve until the process is asked to end.

    Raises:
        UserError: there is no such folder, others could reach it without a token, or nothing can listen there.
    """
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder: give that of your runs (storage.path)")
    is_local = host in LOCAL_HOSTS
    if not is_local and not token:
        raise UserError(f"--host={host}: others could read your runs: give a token too, --token=WORD")
    token = token or secrets.token_urlsafe(24)
    warm_up()
    listening = listening_socket(host, port)
    port = listening.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    print(f"runs of {root}: http://{shown}:{port}/#token={quote(token, safe='')}", flush=True)
    print("the token lets a page steer; closing this or the page leaves the runs alone; Ctrl-C ends it", flush=True)
    app = ui_app(root, token, port, is_local)
    config = uvicorn.Config(app, log_level="warning", server_header=False, timeout_graceful_shutdown=GRACE_S)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])


# ------------------------------------------------------------------------------------------------------------- answers


def _json(answer: Callable[[Mapping[str, str], Mapping[str, str]], Any]) -> Handler:
    """The answer of a thread: files are read."""

    async def handle(request: Request) -> Response:
        path, query = request.path_params, dict(request.query_params)
        return _json_response(await asyncio.to_thread(lambda: strict_json(answer(path, query))))

    return handle


def _json_response(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


async def _page(request: Request) -> Response:
    if not (STATIC / INDEX).is_file():
        raise HTTPException(404, "this installation has no pages: install plumbob anew")
    return FileResponse(STATIC / INDEX, media_type="text/html")


def _stream(begin: Callable[[Request], Any]) -> Handler:
    async def handle(request: Request) -> Response:
        chunks = await asyncio.to_thread(begin, request)
        return StreamingResponse(chunks, media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    return handle


def _live_of_run(live: LiveStreams, request: Request) -> Any:
    return live.of_run(request.path_params, dict(request.query_params), request.headers.get("last-event-id"))


def _export(answers: RunAnswers) -> Handler:
    async def handle(request: Request) -> Response:
        run_id = answers.location(request.path_params).id
        content = await asyncio.to_thread(exported_run, answers, run_id)
        name = "".join(
            letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "-" for letter in run_id
        )
        headers = {"content-disposition": f'attachment; filename="{name}.html"'}
        return Response(content, media_type="text/html; charset=utf-8", headers=headers)

    return handle


def _steer(answers: RunAnswers, steering: Steering) -> Handler:
    async def handle(request: Request) -> Response:
        words = steer_command(await _body(request))
        folder = (await asyncio.to_thread(answers.location, request.path_params)).folder
        return _json_response(strict_json({"message": await steering.ask(folder, words)}))

    return handle


def _session(answers: RunAnswers, guard: RequestGuard) -> Handler:
    async def handle(request: Request) -> Response:
        needs_token = guard.needs_token(request.headers)
        found = session(answers, guard.may_steer(request.headers), needs_token)
        return _json_response(strict_json(found | ({"runs_folder": ""} if needs_token else {})))

    return handle


def _begin_session(guard: RequestGuard) -> Handler:
    """Reading is remembered in a cookie, since streams bear no header; steering is not."""

    async def handle(request: Request) -> Response:
        content = await _body(request)
        token = content.get("token") if isinstance(content, dict) else None
        if not isinstance(token, str) or not guard.bears(token):
            raise HTTPException(401, "that is not the token: it stands in the address that `plumbob ui` printed")
        response = Response(status_code=204)
        is_secure = request.url.scheme == "https"
        response.set_cookie(guard.cookie, guard.reading, httponly=True, samesite="strict", secure=is_secure)
        return response

    return handle


async def _body(request: Request) -> Any:
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > MAX_BODY_BYTES:
            raise HTTPException(413, f"a request may have {MAX_BODY_BYTES} bytes")
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise HTTPException(400, "expected JSON") from None


async def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        reason = "there is nothing here: go back to the list of runs" if error.detail == "Not Found" else error.detail
        return _json_response(strict_json({"error": reason}), error.status_code)
    return _json_response(strict_json({"error": str(error)}), 422)


async def _failed(request: Request, error: Exception) -> Response:
    """The traceback goes to the server's own terminal, not to the page."""
    return _json_response(strict_json({"error": f"the server failed at this: {type(error).__name__}"}), 500)
