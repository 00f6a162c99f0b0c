"""The part `http`: an endpoint that scores batches (HttpScorer)."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from plumbob.configs.settings.reward_services import HttpPart
from plumbob.core.errors import UserError
from plumbob.reward.scorer import Opening, Score, ScoreRequest
from plumbob.reward.services.endpoint import MAX_SHOWN, Endpoint, EndpointError

CHECK_TIMEOUT_S = 10.0


class HttpScorer:
    """Posts batches of responses, and gives the scores that come back.

    A batch is `{"requests": [{"prompt", "response", "row"}, ...]}`, its answer `{"scores": [...]}`: a number, a null
    for a response that could not be scored, or `{"score": number, "parts": {name: number}}` for each.

    Raises:
        UserError: the variable of the token is not set.
    """

    def __init__(self, part: HttpPart) -> None:
        self._part, self._endpoint = part, Endpoint(part)

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Scores in the order of the requests.

        Raises:
            RunFailed: a response could not be scored, and `on_failure` is `stop`.
        """
        size = self._part.batch_size
        batches = [requests[start : start + size] for start in range(0, len(requests), size)]
        return [score for scores in self._endpoint.for_each(self._score_batch, batches) for score in scores]

    def _score_batch(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        rows = [{"prompt": one.prompt, "response": one.response, "row": _plain(one.row)} for one in requests]
        try:
            found = scores_of(self._endpoint.post(self._part.url, {"requests": rows}), len(requests))
        except EndpointError as error:
            return [self._endpoint.failed(str(error)) for _ in requests]
        unscored = "the endpoint gave it no score"
        return [self._endpoint.failed(unscored) if score is None else score for score in found]


def scores_of(answer: httpx.Response, number: int) -> list[Score | None]:
    """What the endpoint answered, checked. EndpointError where it is not of the form."""
    try:
        given = answer.json()["scores"]
        found = [_score_of(value) for value in given]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EndpointError(f"its answer is not of the form ({error}): {answer.text[:MAX_SHOWN]}") from error
    if len(found) != number:
        raise EndpointError(f"it gave {len(found)} scores for {number} responses")
    return found


def _score_of(value: Any) -> Score | None:
    match value:
        case None:
            return None
        case {"score": score, **others}:
            parts: Any = others.get("parts", {})
            parts = {name: _number(part) for name, part in parts.items()}
            return Score(_number(score), parts)
        case _:
            return Score(_number(value), {})


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"a score is {value!r}, and must be a finite number")
    return float(value)


def _plain(value: Any) -> Any:
    """As JSON can carry it: what it has no form for, such as a date of a Parquet file, as text; NaN as null."""
    match value:
        case str() | bool() | int() | None:
            return value
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(name): _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return str(value)


def opening(part: HttpPart, folder: Path | None) -> Opening:
    """Checked with a batch of nothing: whoever does not answer that does not answer a run."""

    def check() -> None:
        try:
            scores_of(Endpoint(part, CHECK_TIMEOUT_S).post(part.url, {"requests": []}, retries=0), 0)
        except EndpointError as error:
            raise UserError(
                f"the reward's part {part.label}: {part.url} does not score: {error}. Start what answers "
                f"there, such as plumbob serve-reward FOLDER, or correct the url"
            ) from error

    return Opening(check, lambda device: HttpScorer(part))
