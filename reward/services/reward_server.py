"""A trained reward model as an endpoint (`plumbob serve-reward`): batches in, scores out, health, a token."""

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from plumbob.configs.settings.data import ReadingSettings
from plumbob.core.errors import RunFailed
from plumbob.data.reading.fields import prompt_of
from plumbob.data.reading.messages import CONVERSATIONS
from plumbob.data.reading.question import QUESTIONS, SYSTEM
from plumbob.data.texts.chat_text import Message, ModelRender
from plumbob.data.texts.written_texts import written_texts
from plumbob.reward.scorer import Score, Scorer, ScoreRequest

MAX_BODY_BYTES = 64 * 2**20
MAX_REQUESTS = 10_000
"""Responses in one batch."""

MESSAGE_FIELDS = (*CONVERSATIONS, *QUESTIONS, "chosen")
"""Of a row, by the names that readers know: those that may hold messages which a prompt is made of."""

FormPrompts = Callable[..., Mapping[str, str]]
"""Chat messages, and what their template is given beside them -> the prompt as the reward model reads it, by its name;
empty where it reads the prompt's text."""


@dataclass(frozen=True)
class _ScoreCall:
    requests: Sequence[ScoreRequest]
    scores: "asyncio.Future[list[Score]]"


class BatchedScorer:
    """Scores one batch at a time, in a thread; what came in meanwhile is scored together, up to `max_rows`."""

    def __init__(self, scorer: Scorer, max_rows: int) -> None:
        self._scorer, self._max_rows = scorer, max_rows
        self._waiting: asyncio.Queue[_ScoreCall] = asyncio.Queue()

    async def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Raises what the scorer raises."""
        call = _ScoreCall(requests, asyncio.get_running_loop().create_future())
        await self._waiting.put(call)
        return await call.scores

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            calls = [await self._waiting.get()]
            while not self._waiting.empty() and sum(len(call.requests) for call in calls) < self._max_rows:
                calls.append(self._waiting.get_nowait())
            await self._score(calls)

    async def _score(self, calls: Sequence[_ScoreCall]) -> None:
        together = [request for call in calls for request in call.requests]
        try:
            scores = iter(await asyncio.to_thread(self._scorer.score, together))
        except Exception as error:
            if len(calls) > 1:  # One of them may be to blame alone.
                for call in calls:
                    await self._score([call])
            elif not calls[0].scores.done():  # Whoever asked may have gone.
                calls[0].scores.set_exception(error)
            return
        for call in calls:
            found = [next(scores) for _ in call.requests]
            if not call.scores.done():
                call.scores.set_result(found)


def reward_app(
    scorer: Scorer, form_prompts: FormPrompts, about: dict[str, Any], token: str | None, max_rows: int
) -> Starlette:
    """The endpoint: GET /health, POST /score as `HttpScorer` asks.

    Args:
        about: what /health says of the model.
        token: what a request must bear; None asks for none.
        max_rows: responses that are scored together.
    """
    batched = BatchedScorer(scorer, max_rows)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        scoring = asyncio.create_task(batched.run())
        yield
        scoring.cancel()
        with suppress(asyncio.CancelledError):
            await scoring

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", **about})

    async def score(request: Request) -> Response:
        if token is not None and not _bears(request, token):
            return _refused(401, "the request does not bear the token that this server was started with")
        body = await _bounded_body(request)
        if body is None:
            return _refused(413, f"a batch may have {MAX_BODY_BYTES} bytes")
        try:
            requests = score_requests_of(body, form_prompts)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return _refused(400, f"not a batch of requests: {error}")
        try:
            scores = await batched.score(requests)
        except RunFailed as error:
            return _refused(422, str(error))
        return JSONResponse({"scores": [{"score": one.total, "parts": dict(one.parts)} for one in scores]})

    routes: list[tuple[str, Callable[[Request], Awaitable[Response]], str]] = [
        ("/health", health, "GET"),
        ("/score", score, "POST"),
    ]
    return Starlette(
        routes=[Route(path, handler, methods=[method]) for path, handler, method in routes], lifespan=lifespan
    )


def score_requests_of(body: bytes, form_prompts: FormPrompts) -> list[ScoreRequest]:
    """Raises ValueError, TypeError or KeyError where it is no batch of requests."""
    given = json.loads(body)["requests"]
    if not isinstance(given, list) or len(given) > MAX_REQUESTS:
        raise ValueError(f"expected a list of at most {MAX_REQUESTS} requests")
    return [_score_request(one, form_prompts) for one in given]


def _score_request(given: dict[str, Any], form_prompts: FormPrompts) -> ScoreRequest:
    prompt, response = given["prompt"], given["response"]
    if not isinstance(prompt, str) or not isinstance(response, str):
        raise TypeError("prompt and response must be texts")
    asked = _asked_in(given.get("row") or {})
    return ScoreRequest(prompt, response, form_prompts={} if asked is None else form_prompts(asked[0], **asked[1]))


class _AskedMessages(ModelRender):
    """Keeps the messages that are first to be written as a prompt, with what goes beside them."""

    found: tuple[list[Message], dict[str, Any]] | None = None

    def __call__(self, messages: list[Message], **values: Any) -> str:
        if self.found is None and values.get("add_generation_prompt", True):
            self.found = messages, values
        return ""


def _asked_in(row: dict[str, Any]) -> tuple[list[Message], dict[str, Any]] | None:
    """The messages that a row of a prompts' file asks, as they are read from the file; None where it asks a text.

    Raises RowError.
    """
    fields = {name: value for name, value in row.items() if value is not None}
    if SYSTEM in fields or any(isinstance(fields.get(name), list) for name in MESSAGE_FIELDS):
        asked = _AskedMessages()
        prompt_of(fields, written_texts(asked, ReadingSettings()))
        return asked.found
    return None


async def _bounded_body(request: Request) -> bytes | None:
    """None where it is longer than it may be; no more than that is held."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)


def _bears(request: Request, token: str) -> bool:
    given = request.headers.get("authorization", "")
    return hmac.compare_digest(given.encode(), f"Bearer {token}".encode())


def _refused(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status_code=status)
