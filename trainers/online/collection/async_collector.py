"""Sampling and scoring beside learning: a thread that goes as many steps ahead as it is allowed to."""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from copy import copy
from threading import Event
from typing import Any, Self

from plumbob.configs.runs import OnlineRun
from plumbob.data.prompts import PromptCursor
from plumbob.reward.scorer import Scorer
from plumbob.rollout.requests import RolloutWorkers
from plumbob.trainers.online.collection.collector import Collector, StepResponses
from plumbob.trainers.online.collection.sample_ledger import SampleLedger

ENDING_S = 30.0
"""What a failure waits for the call that the thread is in, before the failure is raised all the same."""


class AsyncCollector:
    """Responses to one step after another, each begun as soon as it is allowed. Used as a context, which ends the
    thread.

    Args:
        step: the first that responses are taken for.
        cursor: where its prompts begin. It is left as it is: `take` says where to move it to.
    """

    def __init__(
        self,
        run: OnlineRun,
        step: int,
        cursor: PromptCursor,
        samplers: RolloutWorkers,
        scorer: Scorer,
        ledger: SampleLedger,
    ) -> None:
        self._next, self._cursor = step, copy(cursor)
        self._collector = Collector(run, self._cursor, samplers, scorer, ledger, self._unless_ending)
        self._begun: deque[Future[tuple[StepResponses, Mapping[str, Any]]]] = deque()
        self._is_ending = Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sampling")

    def allow_up_to(self, last: int) -> None:
        """Let all steps up to and with `last` be sampled."""
        while self._next <= last:
            self._begun.append(self._thread.submit(self._sampled, self._next))
            self._next += 1

    def take(self) -> tuple[StepResponses, Mapping[str, Any]]:
        """The next step's responses and the state of the cursor behind its prompts; waits for them.

        Raises what sampling or scoring has raised, once the steps before it have been taken.
        """
        return self._begun.popleft().result()

    def _sampled(self, step: int) -> tuple[StepResponses, Mapping[str, Any]]:
        return self._collector.collect(step), self._cursor.state()

    @contextmanager
    def _unless_ending(self, _: str) -> Iterator[None]:
        """A phase that does not begin once nobody will take its responses."""
        if self._is_ending.is_set():
            raise CancelledError
        yield

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failure: object, *_: object) -> None:
        """End the thread with the call that it is in, whose bound is the samplers' or the scorer's own."""
        self._is_ending.set()
        self._thread.shutdown(wait=False, cancel_futures=True)
        wait([batch for batch in self._begun if not batch.cancelled()], None if failure is None else ENDING_S)
