"""Groups of workers that look like one learner, one sampler, one scorer."""

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray
from numpy.typing import NDArray
from torch import Tensor

from cluster.health import CALL_TIMEOUT, Actor, Call, gather, outcome
from configs.errors import RunFailed
from models.adapters import Adapter, Role
from reward.scorer import Score, ScoreError
from rollout.proof import PublishProof
from rollout.records import Rollout, SampleRequest
from trainers.errors import NUM_NAMED
from trainers.learners import UpdatePlan, join_rows, merge_results

Item = TypeVar("Item")
Result = TypeVar("Result")


class LearnerGroup:
    """All ranks as one: satisfies `trainers.learner.Learners`."""

    def __init__(self, actors: Sequence[Actor], timeout_s: float) -> None:
        self.actors, self._timeout_s = tuple(actors), timeout_s

    def update(self, batch: Any, plan: UpdatePlan) -> dict[str, float]:
        shared = ray.put(batch)
        return merge_results(self._all("updating", lambda handle: handle.update.remote(shared, plan)))

    def evaluate(self, batch: Any) -> dict[str, float]:
        shared = ray.put(batch)
        sums: dict[str, float] = {}
        for shares in self._all("evaluating", lambda handle: handle.evaluate.remote(shared)):
            for name, share in shares.items():
                sums[name] = sums.get(name, 0.0) + share
        return sums

    def compute(self, batch: Any, role: Role | None, function: Callable[[Any, Any], Tensor]) -> NDArray[np.float32]:
        shared = ray.put(batch)
        parts = self._all(
            f"computing as {role or 'model'}", lambda handle: handle.compute.remote(shared, role, function)
        )
        return join_rows(parts, batch.num_rows)

    def adapter(self, version: int) -> Adapter:
        adapter: Adapter = self._all("reading the adapter", lambda handle: handle.adapter.remote(version))[0]
        return adapter

    def save(self, folder: Path) -> None:
        self._all("saving", lambda handle: handle.save.remote(folder))

    def load(self, folder: Path) -> None:
        self._all("loading a checkpoint", lambda handle: handle.load.remote(folder))

    def export(self, folder: Path) -> None:
        self._all("writing the result", lambda handle: handle.export.remote(folder))

    def _all(self, doing: str, call: Callable[[Any], Any]) -> list[Any]:
        return gather([Call(actor, call(actor.handle)) for actor in self.actors], doing, self._timeout_s)


class SamplerGroup:
    """All rollout workers as one: satisfies `rollout.requests.Samplers`."""

    def __init__(self, actors: Sequence[Actor], chunk_size: int, timeout_s: float) -> None:
        self.actors, self._chunk_size, self._timeout_s = tuple(actors), chunk_size, timeout_s

    def sample(self, requests: Sequence[SampleRequest]) -> list[Rollout]:
        return hand_out(
            self.actors,
            requests,
            self._chunk_size,
            lambda handle, chunk: handle.sample.remote(chunk),
            "sampling",
            self._timeout_s,
        )

    def load(self, adapter: Adapter) -> None:
        """One copy into the object store; every worker pulls it, loads it and proves what it holds."""
        shared = ray.put(adapter)
        calls = [Call(actor, actor.handle.load.remote(shared)) for actor in self.actors]
        proofs: list[PublishProof] = gather(calls, f"loading policy version {adapter.version}", self._timeout_s)
        for proof in proofs:
            if proof.version != adapter.version or proof.num_tensors != len(adapter.tensors):
                raise RunFailed(
                    f"{proof.worker} proved {proof.num_tensors} tensors of version {proof.version}, "
                    f"{len(adapter.tensors)} of version {adapter.version} were sent"
                )

    def serve_base(self) -> None:
        """Sample from the base model, without an adapter."""
        calls = [Call(actor, actor.handle.serve_base.remote()) for actor in self.actors]
        gather(calls, "returning to the base model", self._timeout_s)


class ScorerGroup:
    """All scorers as one: satisfies `reward.scorer.Scorer`."""

    def __init__(self, actors: Sequence[Actor], chunk_size: int, timeout_s: float) -> None:
        self.actors, self._chunk_size, self._timeout_s = tuple(actors), chunk_size, timeout_s

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        return hand_out(
            self.actors,
            pairs,
            self._chunk_size,
            lambda handle, chunk: handle.score.remote(chunk),
            "scoring",
            self._timeout_s,
        )


def hand_out(
    actors: Sequence[Actor],
    items: Sequence[Item],
    chunk_size: int,
    call: Callable[[Any, Sequence[Item]], Any],
    doing: str,
    timeout_s: float,
) -> list[Any]:
    """Results of all items in order. Chunks are taken by whoever is free, so a slow worker delays only its own.

    Raises:
        ScoreError: a chunk's, its rows counted over all items.
        UserError, RunFailed: as in `cluster.health.gather`.
    """
    waiting = deque((start, items[start : start + chunk_size]) for start in range(0, len(items), chunk_size))
    idle = deque(actors)
    running: dict[Any, tuple[int, Call]] = {}
    done: dict[int, list[Any]] = {}
    while waiting or running:
        while waiting and idle:
            start, chunk = waiting.popleft()
            actor = idle.popleft()
            result = call(actor.handle, chunk)
            running[result] = (start, Call(actor, result))
        ready, _ = ray.wait(list(running), num_returns=1, timeout=timeout_s)
        if not ready:
            late = ", ".join(f"{call.actor.name} (log: {call.actor.log})" for _, call in running.values())
            raise RunFailed(f"{late}: still {doing} after {timeout_s:.0f} s ({CALL_TIMEOUT})")
        start, ended = running.pop(ready[0])
        try:
            done[start] = outcome(ended, doing)
        except ScoreError as error:
            rows = tuple(start + row for row in error.rows)
            where = f"row {', '.join(map(str, rows[:NUM_NAMED]))} of the batch of {len(items)}"
            raise ScoreError(f"{error} ({where})", rows) from error
        idle.append(ended.actor)
    return [result for start in sorted(done) for result in done[start]]
