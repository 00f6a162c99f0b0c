"""An HTTP endpoint that is asked again where that may help (Endpoint): retries, back-off, bounds, a token."""

import os
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx

from plumbob.configs.settings.reward_services import ServicePart
from plumbob.core.errors import RunFailed, UserError
from plumbob.reward.scorer import Score
from plumbob.reward.services.bounded_requests import BoundedRequests

T = TypeVar("T")
R = TypeVar("R")

FIRST_WAIT_S, MAX_WAIT_S = 0.5, 30.0
MIN_SPREAD, MAX_SPREAD = 0.5, 1.5
"""Between which factors a wait lies, so that the scorers of a run do not come back all at once."""
MAX_SHOWN = 200


class EndpointError(Exception):
    """What the endpoint did not do: why, for people."""


class Endpoint:
    """The endpoint of a reward's part.

    Raises:
        UserError: the variable of the token is not set.
    """

    def __init__(self, part: ServicePart, timeout_s: float | None = None) -> None:
        self._part, self._name = part, part.label
        self._timeout_s = timeout_s or part.timeout_s
        self._requests = BoundedRequests(self._headers(), part.max_in_flight)
        self._gave_up = ""

    @property
    def longest_s(self) -> float:
        """How long `post` may take: each try its whole time-out, and between them the longest waits."""
        waits = (min(FIRST_WAIT_S * 2**number, MAX_WAIT_S) for number in range(self._part.retries))
        return (self._part.retries + 1) * self._timeout_s + MAX_SPREAD * sum(waits)

    def post(self, url: str, body: Any, retries: int | None = None) -> httpx.Response:
        """The answer of status 200 to one try of several. EndpointError when there was none, or to one before."""
        if self._gave_up:
            raise EndpointError(f"not asked, after another was not answered: {self._gave_up}")
        wait_s, reason = FIRST_WAIT_S, ""
        for tries_left in range(self._part.retries if retries is None else retries, -1, -1):
            try:
                answer = self._requests.post(url, body, self._timeout_s)
            except TimeoutError:
                reason = f"time-out: no whole answer within timeout_s={self._timeout_s:g} s"
            except (httpx.RequestError, httpx.InvalidURL) as error:
                reason = f"{type(error).__name__}: {error}"
            else:
                if answer.status_code == 200:
                    return answer
                reason = f"it answered with status {answer.status_code}: {answer.text[:MAX_SHOWN]}"
                if answer.status_code != 429 and answer.status_code < 500:
                    raise EndpointError(reason)
            if tries_left:
                time.sleep(wait_s * random.uniform(MIN_SPREAD, MAX_SPREAD))
                wait_s = min(2 * wait_s, MAX_WAIT_S)
        self._gave_up = reason
        raise EndpointError(reason)

    def for_each(self, ask: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """What `ask` gives for each item, in their order, `max_in_flight` at once.

        After one that no try was answered to, those that are left are not asked: a service that is gone costs its tries
        once, not once an item.
        """
        self._gave_up = ""
        with ThreadPoolExecutor(self._part.max_in_flight) as threads:
            return list(threads.map(ask, items))

    def failed(self, reason: str) -> Score:
        """What a response is given that could not be scored. RunFailed where that is to end the run."""
        if self._part.on_failure == "stop":
            raise RunFailed(
                f"the reward's part {self._name} at {self._part.url}: {reason}. Mend the endpoint and resume the run, "
                f"or begin one that gives such responses a score: on_failure=NUMBER"
            )
        return Score(self._part.on_failure, {}, {self._name: reason})

    def _headers(self) -> dict[str, str]:
        variable = self._part.token_env
        if variable is None:
            return {}
        token = os.environ.get(variable)
        if not token:
            raise UserError(
                f"the reward's part {self._name} takes its token from the variable {variable}, which is not set here: "
                f"export it on every host before Ray starts there"
            )
        return {"Authorization": f"Bearer {token}"}
