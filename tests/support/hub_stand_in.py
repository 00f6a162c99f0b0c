"""A hub of a test's own: as much of the Hugging Face Hub's HTTP API as an upload of a model speaks, on a free port."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

TOKEN = "hf_stand_in"
START_S = END_S = 30.0


@dataclass
class HubRepository:
    is_private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)


@dataclass
class HubStandIn:
    """What was sent to it. Large files, those that a hub keeps apart from git, are the `.safetensors`."""

    url: str = ""
    repositories: dict[str, HubRepository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)

    def app(self) -> Starlette:
        routes = [
            Route("/api/repos/create", self._create, methods=["POST"]),
            Route("/api/validate-yaml", self._validate, methods=["POST"]),
            Route("/api/models/{team}/{name}", self._info),
            Route("/api/models/{team}/{name}/preupload/main", self._modes, methods=["POST"]),
            Route("/api/models/{team}/{name}/commit/main", self._commit, methods=["POST"]),
            Route("/{team}/{name}.git/info/lfs/objects/batch", self._batch, methods=["POST"]),
            Route("/large/{digest}", self._take, methods=["PUT"]),
        ]
        return Starlette(routes=routes)

    def _refusal(self, request: Request) -> Response | None:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return JSONResponse({"error": "Invalid username or password."}, 401)
        return None

    async def _create(self, request: Request) -> Response:
        asked = await request.json()
        name = f"{asked['organization']}/{asked['name']}"
        if refusal := self._refusal(request):
            return refusal
        if asked["organization"] != "team":
            message = f"You don't have the rights to create a model under the namespace {asked['organization']!r}"
            return JSONResponse({"error": message}, 403)
        if name in self.repositories:
            return JSONResponse({"error": "You already created this model repo", "url": f"{self.url}/{name}"}, 409)
        self.repositories[name] = HubRepository(asked.get("visibility") == "private")
        return JSONResponse({"url": f"{self.url}/{name}"})

    async def _validate(self, request: Request) -> Response:
        return JSONResponse({"errors": [], "warnings": []})

    async def _info(self, request: Request) -> Response:
        name = _repository(request)
        if name not in self.repositories or self._refusal(request):
            return JSONResponse({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        found = self.repositories[name]
        return JSONResponse({"id": name, "modelId": name, "private": found.is_private, "tags": [], "siblings": []})

    async def _modes(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        files = [
            {
                "path": one["path"],
                "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for one in (await request.json())["files"]
        ]
        return JSONResponse({"files": files})

    async def _batch(self, request: Request) -> Response:
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.url}/large/{one['oid']}"}}}
            for one in (await request.json())["objects"]
        ]
        return JSONResponse({"transfer": "basic", "objects": objects})

    async def _take(self, request: Request) -> Response:
        content, digest = await request.body(), request.path_params["digest"]
        if hashlib.sha256(content).hexdigest() != digest:
            return Response("another digest", 400)
        self.large[digest] = content
        return Response()

    async def _commit(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        repository = self.repositories[_repository(request)]
        for line in (await request.body()).splitlines():
            sent: dict[str, Any] = json.loads(line)
            value = sent["value"]
            match sent["key"]:
                case "header":
                    repository.commits.append(value["summary"])
                case "file":
                    repository.files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    repository.files[value["path"]] = self.large[value["oid"]]
        return JSONResponse(
            {"commitUrl": f"{self.url}/{_repository(request)}/commit/{'0' * 40}", "commitOid": "0" * 40}
        )


def _repository(request: Request) -> str:
    return f"{request.path_params['team']}/{request.path_params['name']}"


@contextmanager
def running_hub() -> Iterator[HubStandIn]:
    hub = HubStandIn()
    server = uvicorn.Server(uvicorn.Config(hub.app(), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + START_S
    while not server.started:
        assert time.monotonic() < deadline and thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    hub.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield hub
    finally:
        server.should_exit = True
        thread.join(END_S)
        assert not thread.is_alive(), "the server did not end"
