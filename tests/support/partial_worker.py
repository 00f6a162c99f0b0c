"""A rollout worker without a model, in a module that Ray's processes can import."""

import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np

from plumbob.cluster.calls import wait_until
from plumbob.models.adapter import Adapter
from plumbob.rollout.publish_proof import PublishProof
from plumbob.rollout.rollout_heads import ChunkHeads
from plumbob.rollout.rollout_records import NOT_STARTED, FinishReason, Rollout, SampleRequest
from tests.support.ray_worker import TIMEOUT_S


class PartialWorker:
    """A rollout worker that makes two tokens of each response in a call: its own number, of responses of five.

    Args:
        dies_in: name -> which of its calls, counted from 1, ends that worker.
        holds_in: the same of the call that waits until it is released.
    """

    def __init__(
        self, log: Path, dies_in: dict[str, int] | None = None, holds_in: dict[str, int] | None = None
    ) -> None:
        self._name, self._dies_in, self._holds_in = log.stem, dies_in or {}, holds_in or {}
        self._num_calls, self._version = 0, 0
        self._released = threading.Event()

    def load(self, adapter: Adapter) -> PublishProof:
        self._version = adapter.version
        return PublishProof(self._name, adapter.version, 0, max_abs_difference=0.0, max_allowed=0.0, seconds=0.0)

    def sample(self, requests: list[SampleRequest]) -> list[Rollout]:
        self._num_calls += 1
        if self._dies_in.get(self._name) == self._num_calls:
            os._exit(1)
        if self._holds_in.get(self._name) == self._num_calls:
            assert self._released.wait(TIMEOUT_S)
        return [self._sliced(request) for request in requests]

    def sample_apart(self, requests: list[SampleRequest]) -> tuple[ChunkHeads, list[Rollout]]:
        rollouts = self.sample(requests)
        return ChunkHeads.of(rollouts), rollouts

    def _sliced(self, request: SampleRequest) -> Rollout:
        began = request.partial
        num_new = min(2, 5 - len(began.token_ids))
        number = int(self._name.split("-")[1])
        token_ids = np.append(began.token_ids, np.full(num_new, number, np.int32))
        logprobs = np.append(began.logprobs, np.full(num_new, -number, np.float32))
        versions = np.append(began.versions, np.full(num_new, self._version, np.int32))
        reason: FinishReason = "length" if len(token_ids) == 5 else "partial"
        whose = replace(request, partial=NOT_STARTED)
        return Rollout(whose, reason, "", token_ids, logprobs, versions, np.ones(len(token_ids), np.bool_), self._name)

    def num_calls(self) -> int:
        return self._num_calls

    def release(self) -> None:
        self._released.set()


class StartedPartialWorker(PartialWorker):
    """The same, as a session starts and ends it. It waits while the file beside its log, `.hold`, is there."""

    def __init__(self, log: Path, num_threads: int, packages: dict[str, str], probe: Path) -> None:
        super().__init__(log)
        self._hold = log.with_suffix(".hold")

    def sample(self, requests: list[SampleRequest]) -> list[Rollout]:
        assert wait_until(lambda: not self._hold.exists(), TIMEOUT_S)
        return super().sample(requests)

    def close(self) -> None: ...
