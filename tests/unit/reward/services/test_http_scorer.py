"""Scores from a real endpoint: what it is sent, what is tried again, and what becomes of what it cannot score."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date
from typing import Any

import pytest

from plumbob.configs.settings.reward_services import HttpPart
from plumbob.core.errors import RunFailed, UserError
from plumbob.reward.open_scorer import check_reward, open_scorer
from plumbob.reward.scorer import Score, ScoreRequest
from plumbob.reward.services import endpoint as endpoints
from tests.support.http_endpoint import Answer, http_endpoint
from tests.support.score_requests import score_requests

Rows = list[dict[str, Any]]


@contextmanager
def endpoint(answer: Callable[[Rows, Any], Answer]) -> Iterator[str]:
    """The address of one that answers a batch by (its requests, its headers)."""
    with http_endpoint(lambda body, headers: answer(body["requests"], headers)) as address:
        yield f"{address}/score"


@pytest.fixture(autouse=True)
def soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "FIRST_WAIT_S", 0.001)


def lengths(requests: Rows, _: Any) -> Answer:
    return 200, {"scores": [len(request["response"]) for request in requests]}


def test_batches_come_back_in_their_order() -> None:
    seen: list[int] = []

    def answer(requests: Rows, headers: Any) -> Answer:
        seen.append(len(requests))
        time.sleep(
            0.2 if requests and requests[0]["response"] == "" else 0
        )  # The first batch is the last to be answered.
        return lengths(requests, headers)

    with endpoint(answer) as url:
        part = HttpPart(url=url, batch_size=3)
        check_reward(part)
        found = open_scorer(part, "cpu").score(score_requests([("q", "x" * number) for number in range(8)]))
    assert [score.total for score in found] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert sorted(seen) == [0, 2, 3, 3]  # The empty one is the check's.


def test_the_row_goes_along_and_parts_come_back() -> None:
    def answer(requests: Rows, _: Any) -> Answer:
        row = {"answer": 4, "asked": {"on": "2026-11-30"}, "shares": [0.5, None]}
        assert requests == [{"prompt": "q", "response": "4", "row": row}]
        return 200, {"scores": [{"score": 1, "parts": {"exact": 1.0}}]}

    with endpoint(answer) as url:
        row = {"answer": 4, "asked": {"on": date(2026, 11, 30)}, "shares": [0.5, float("nan")]}
        request = ScoreRequest("q", "4", row)
        assert open_scorer(HttpPart(url=url), "cpu").score([request]) == [Score(1.0, {"exact": 1.0})]


def test_never_more_in_flight_than_said() -> None:
    at_once, most = [0], [0]
    lock = threading.Lock()

    def answer(requests: Rows, headers: Any) -> Answer:
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        time.sleep(0.05)
        with lock:
            at_once[0] -= 1
        return lengths(requests, headers)

    with endpoint(answer) as url:
        part = HttpPart(url=url, batch_size=1, max_in_flight=2)
        assert len(open_scorer(part, "cpu").score(score_requests([("q", "x")] * 8))) == 8
    assert most[0] == 2


@pytest.mark.parametrize("status", [429, 503])
def test_what_may_pass_is_tried_again(status: int) -> None:
    statuses = [status, status, 200]

    def answer(requests: Rows, headers: Any) -> Answer:
        now = statuses.pop(0)
        return lengths(requests, headers) if now == 200 else (now, {"error": "busy"})

    with endpoint(answer) as url:
        assert open_scorer(HttpPart(url=url), "cpu").score(score_requests([("q", "abc")])) == [Score(3.0, {})]
    assert statuses == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda requests, _: (400, {"error": "no such model"}), r"status 400: .*no such model"),
        (lambda requests, _: (503, {"error": "busy"}), r"status 503"),
        (lambda requests, _: (200, {"scores": [1.0, 2.0]}), r"gave 2 scores for 1 responses"),
        (lambda requests, _: (200, {"scores": ["good"]}), r"a score is 'good', and must be a finite number"),
        (lambda requests, _: (200, {"scores": [float("nan")]}), r"a score is nan"),
        (lambda requests, _: (200, {"scores": [True]}), r"a score is True"),
        (lambda requests, _: (200, ["no scores"]), r"not of the form"),
        (lambda requests, _: (200, {"scores": [None]}), r"the endpoint gave it no score"),
    ],
)
def test_what_cannot_be_scored_ends_the_run_or_has_the_score_that_was_chosen(
    answer: Callable[..., Answer], reason: str
) -> None:
    asked = score_requests([("q", "abc")])
    with endpoint(answer) as url:
        with pytest.raises(RunFailed, match=rf"part http at {url}: .*{reason}.*on_failure=NUMBER"):
            open_scorer(HttpPart(url=url, retries=1), "cpu").score(asked)
        (found,) = open_scorer(HttpPart(url=url, retries=1, on_failure=-1.5, name="mine"), "cpu").score(asked)
    assert (found.total, list(found.failures)) == (-1.5, ["mine"])


def test_a_service_that_is_gone_costs_its_tries_once() -> None:
    seen: list[int] = []

    def answer(requests: Rows, _: Any) -> Answer:
        seen.append(len(requests))
        return 503, {"error": "down"}

    with endpoint(answer) as url:
        part = HttpPart(url=url, batch_size=1, max_in_flight=1, retries=2, on_failure=-1)
        scorer = open_scorer(part, "cpu")
        found = scorer.score(score_requests([("q", "x")] * 5))
        assert len(seen) == 3 and [score.total for score in found] == [-1] * 5
        assert all("status 503" in score.failures["http"] for score in found)
        # The next batch asks again: it may be back.
        scorer.score(score_requests([("q", "x")]))
        assert len(seen) == 6


@contextmanager
def dripping() -> Iterator[str]:
    """The address of one whose answer comes byte by byte, each soon after the one before, for some twenty seconds."""
    ended = threading.Event()

    def serve(server: socket.socket) -> None:
        while not ended.is_set():
            with suppress(OSError), server.accept()[0] as connection:
                for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b" " * 1000:
                    if ended.wait(0.02):
                        return
                    connection.send(bytes([byte]))

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/score"
        finally:
            ended.set()
            thread.join()


def test_an_answer_that_drips_is_given_up_after_its_time() -> None:
    with dripping() as url:
        began = time.monotonic()
        with pytest.raises(RunFailed, match=r"time-out: no whole answer within timeout_s=0.5 s"):
            open_scorer(HttpPart(url=url, timeout_s=0.5, retries=1), "cpu").score(score_requests([("q", "x")]))
        assert 1.0 <= time.monotonic() - began < 5


def test_nobody_there_is_told_before_anything_starts() -> None:
    with endpoint(lengths) as url:
        pass
    with pytest.raises(UserError, match=rf"{url} does not score: ConnectError.*plumbob serve-reward"):
        check_reward(HttpPart(url=url))


def test_the_token_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINE", raising=False)
    with endpoint(
        lambda requests, headers: (200 if headers["Authorization"] == "Bearer s3" else 401, {"scores": []})
    ) as url:
        part = HttpPart(url=url, token_env="MINE")
        with pytest.raises(UserError, match="the variable MINE, which is not set"):
            check_reward(part)
        monkeypatch.setenv("MINE", "s3")
        check_reward(part)
        with pytest.raises(UserError, match="status 401"):
            check_reward(HttpPart(url=url))


@pytest.mark.parametrize(
    "url", ["localhost:8000/score", "http://localhost:81o0/score", "http://[::1/score", "ftp://x/y"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="address"):
        HttpPart(url=url)
