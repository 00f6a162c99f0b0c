"""An endpoint that scores batches, as a scorer (HttpScorer): retries, back-off, and a bound on what is in flight."""

import math
import os
import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from plumbob.configs.settings.reward_services import HttpPart
from plumbob.core.errors import RunFailed, UserError
from plumbob.reward.scorer import Opening, Score, Scorer, ScoreRequest

FIRST_WAIT_S, MAX_WAIT_S = 0.5, 30.0
CHECK_TIMEOUT_S = 10.0
MAX_SHOWN = 200


class EndpointError(Exception):
    """A batch that the endpoint did not score: why, for people."""


class HttpScorer:
    """Posts batches of responses, and gives the scores that come back.

    A batch is `{"requests": [{"prompt", "response", "row"}, ...]}`, its answer `{"scores": [...]}`: a number, a null
    for a response that could not be scored, or `{"score": number, "parts": {name: number}}` for each.

    Raises:
        UserError: the variable of the token is not set.
    """

    def __init__(self, part: HttpPart) -> None:
        self._part, self._name = part, part.name or part.kind
        self._client = httpx.Client(timeout=part.timeout_s, headers=_headers(part))

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Scores in the order of the requests.

        Raises:
            RunFailed: a response could not be scored, and `on_failure` is `stop`.
        """
        size = self._part.batch_size
        batches = [requests[start : start + size] for start in range(0, len(requests), size)]
        with ThreadPoolExecutor(self._part.max_in_flight) as threads:
            return [score for scores in threads.map(self._score_batch, batches) for score in scores]

    def _score_batch(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        try:
            found = self._post(requests)
        except EndpointError as error:
            return [self._failed(str(error)) for _ in requests]
        return [self._failed("the endpoint gave it no score") if score is None else score for score in found]

    def _failed(self, reason: str) -> Score:
        if self._part.on_failure == "stop":
            raise RunFailed(
                f"the reward's part {self._name} at {self._part.url}: {reason}. Mend the endpoint and resume the run, "
                f"or let such responses have a score: on_failure=NUMBER"
            )
        return Score(self._part.on_failure, {}, {self._name: reason})

    def _post(self, requests: Sequence[ScoreRequest]) -> list[Score | None]:
        """One batch, tried as often as the settings say. EndpointError when no try was answered with scores."""
        rows = [{"prompt": one.prompt, "response": one.response, "row": _plain(one.row)} for one in requests]
        wait_s, reason = FIRST_WAIT_S, ""
        for tries_left in range(self._part.retries, -1, -1):
            try:
                answer = self._client.post(self._part.url, json={"requests": rows})
            except httpx.TransportError as error:
                reason = f"{type(error).__name__}: {error}"
            else:
                if answer.status_code == 200:
                    return scores_of(answer, len(requests))
                reason = f"it answered with status {answer.status_code}: {answer.text[:MAX_SHOWN]}"
                if answer.status_code != 429 and answer.status_code < 500:
                    break
            if tries_left:
                # Spread, so that the scorers of a run do not come back all at once.
                time.sleep(wait_s * (0.5 + random.random()))
                wait_s = min(2 * wait_s, MAX_WAIT_S)
        raise EndpointError(reason)


def scores_of(answer: httpx.Response, number: int) -> list[Score | None]:
    """What the endpoint answered, checked. EndpointError where it is not of the form."""
    try:
        given = answer.json()["scores"]
        found = [_score_of(value) for value in given]
    except (ValueError, KeyError, TypeError) as error:
        raise EndpointError(f"its answer is not of the form ({error}): {answer.text[:MAX_SHOWN]}") from error
    if len(found) != number:
        raise EndpointError(f"it gave {len(found)} scores for {number} responses")
    return found


def _score_of(value: Any) -> Score | None:
    match value:
        case None:
            return None
        case {"score": score, **others}:
            parts = {name: _number(part) for name, part in dict(others.get("parts", {})).items()}
            return Score(_number(score), parts)
        case _:
            return Score(_number(value), {})


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"a score is {value!r}, and must be a finite number")
    return float(value)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON has no form for, such as a date of a Parquet file, is sent as text."""
    known = (str, int, float, bool, list, dict, type(None))
    return {name: value if isinstance(value, known) else str(value) for name, value in row.items()}


def _headers(part: HttpPart) -> dict[str, str]:
    if part.token_env is None:
        return {}
    token = os.environ.get(part.token_env)
    if not token:
        raise UserError(
            f"the reward's part {part.name or part.kind} takes its token from the variable {part.token_env}, which is "
            f"not set here: export it on every host before Ray starts there"
        )
    return {"Authorization": f"Bearer {token}"}


def http_opening(part: HttpPart) -> Opening:
    """Checked with a batch of nothing: whoever does not answer that does not answer a run."""

    def check() -> None:
        try:
            answer = httpx.post(part.url, json={"requests": []}, headers=_headers(part), timeout=CHECK_TIMEOUT_S)
            if answer.status_code != 200:
                raise EndpointError(f"it answered with status {answer.status_code}: {answer.text[:MAX_SHOWN]}")
            scores_of(answer, 0)
        except (httpx.TransportError, EndpointError) as error:
            raise UserError(
                f"the reward's part {part.name or part.kind}: {part.url} does not score: {error}. Start what answers "
                f"there, such as plumbob serve-reward FOLDER, or correct the url"
            ) from error

    def open_scorer(device: str) -> Scorer:
        return HttpScorer(part)

    return Opening(check, open_scorer)
