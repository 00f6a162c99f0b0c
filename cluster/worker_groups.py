"""Groups of workers that look like one learner, one sampler, one scorer."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from torch import Tensor

from plumbob.cluster.calls import Actor, Call, fetched, gather_ranks
from plumbob.cluster.failures import LearnersLost
from plumbob.cluster.fleet.pool import Pool
from plumbob.cluster.fleet.work_queue import Preparation
from plumbob.cluster.workers.published_weights import BUCKET_BYTES, BucketedTensors
from plumbob.core.atomic_files import replaced
from plumbob.core.disk_errors import naming_file
from plumbob.core.errors import RunFailed
from plumbob.models.adapter import Adapter, FullWeights, ModelRole, PolicyWeights
from plumbob.reward.scorer import Score, Scorer, ScoreRequest, by_number, with_texts
from plumbob.rollout.publish_proof import PublishProof
from plumbob.rollout.requests import continuation
from plumbob.rollout.rollout_heads import ChunkHeads, RolloutHead, RolloutRefs, heads_of
from plumbob.rollout.rollout_records import Rollout, SampleRequest
from plumbob.trainers.learner.checkpoint import Files
from plumbob.trainers.learner.learner_protocol import MergedUpdate, UpdatePlan, join_rows, merge_updates, summed
from plumbob.trainers.learner.ranks.rank_learner import Common, RankLearner, Result, Share


class LearnerGroup:
    """All ranks as one: `trainers.learner.ranks.rank_learner.RowLearners`. What loses one raises LearnersLost.

    Args:
        before_update: called before each; what it raises goes through.
        when_lost: called when a rank has been lost, before that is raised.
        bucket_bytes: of weights of the model itself, as many go to samplers at once.
    """

    def __init__(
        self,
        actors: Sequence[Actor],
        timeout_s: float,
        before_update: Callable[[], None],
        when_lost: Callable[[], None],
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        self.actors, self._timeout_s = tuple(actors), timeout_s
        self._bucket_bytes = bucket_bytes
        self._buckets: tuple[tuple[str, ...], ...] | None = None
        self._has_worked = False
        self._before_update, self._when_lost = before_update, when_lost

    def update(self, batch: Any, plan: UpdatePlan) -> MergedUpdate:
        self._before_update()
        shared = ray.put(batch)
        return merge_updates(self._compute("updating", lambda handle: handle.update.remote(shared, plan)))

    def evaluate(self, batch: Any) -> dict[str, float]:
        shared = ray.put(batch)
        return summed(self._compute("evaluating", lambda handle: handle.evaluate.remote(shared)))

    def compute(
        self, batch: Any, role: ModelRole | None, function: Callable[[Any, Any], Tensor]
    ) -> NDArray[np.float32]:
        shared = ray.put(batch)
        parts = self._compute(
            f"computing as {role or 'model'}", lambda handle: handle.compute.remote(shared, role, function)
        )
        return join_rows(parts, batch.num_rows)

    @property
    def num_ranks(self) -> int:
        return len(self.actors)

    def on_ranks(
        self,
        doing: str,
        function: Callable[[RankLearner, Common, Share], Result],
        common: Common,
        shares: Sequence[Share],
        rollouts: Sequence[RolloutRefs] = (),
    ) -> list[Result]:
        """What all are told goes into the object store once; rollouts that are there are fetched by each rank."""
        self._before_update()
        common, left, given = ray.put(common), iter(shares), iter(rollouts)

        def call(handle: Any) -> Any:
            refs = next(given, None)
            if refs is None:
                return handle.on_rank.remote(function, common, next(left))
            return handle.on_rank.remote(function, common, next(left), refs.locations, *refs.parts)

        return self._compute(doing, call)

    def policy_weights(self, version: int) -> PolicyWeights:
        """Weights of the model itself are put into the object store bucket by bucket, and are not held here."""
        doing = "reading the policy"
        if self._buckets is None:
            self._buckets = self._all(doing, lambda handle: handle.weight_buckets.remote(self._bucket_bytes))[0]
        if not self._buckets:
            adapter: PolicyWeights = self._all(doing, lambda handle: handle.policy_weights.remote(version))[0]
            return adapter
        found = []
        for names in self._buckets:
            tensors = self._all(doing, partial(_of_names, version=version, names=names))[0].tensors
            found.append((tuple(tensors), ray.put(tensors)))
        return FullWeights(version, BucketedTensors(found))

    def save(self, folder: Path) -> Files:
        shards = self._all("saving", lambda handle: handle.save.remote(folder))
        return {name: written for files in shards for name, written in files.items()}

    def load(self, folder: Path) -> None:
        self._all("loading a checkpoint", lambda handle: handle.load.remote(folder))

    def export(self, folder: Path) -> None:
        """Whole or not at all: what a rank writes that was given up is in a folder that nobody reads any more."""
        with naming_file(folder), replaced(folder) as partial:
            self._all("writing the result", lambda handle: handle.export.remote(partial, folder))

    def _compute(self, doing: str, call: Callable[[Any], Any]) -> list[Any]:
        """What takes forwards of the model: ranks that have made some have worked."""
        found = self._all(doing, call)
        self._has_worked = True
        return found

    def _all(self, doing: str, call: Callable[[Any], Any]) -> list[Any]:
        try:
            return gather_ranks([Call(actor, call(actor.handle)) for actor in self.actors], doing, self._timeout_s)
        except LearnersLost as lost:
            lost.has_worked = self._has_worked
            self._when_lost()
            raise


def _of_names(handle: Any, version: int, names: Sequence[str]) -> Any:
    return handle.policy_weights.remote(version, names)


class SamplerGroup:
    """All rollout workers as one: satisfies `rollout.requests.RolloutWorkers` with whole rollouts.

    A version may be loaded by one thread while another samples: each worker takes it before its next chunk. Workers
    that sample in parts hand partial responses back, and whoever is free continues them.

    Args:
        before_sampling: called before each batch; what it raises goes through.
        published: told of each version that has been loaded.
    """

    def __init__(
        self,
        pool: Pool,
        chunk_size: int,
        before_sampling: Callable[[], None],
        published: Callable[[int], None] = lambda version: None,
    ) -> None:
        self._pool, self._chunk_size, self._before_sampling = pool, chunk_size, before_sampling
        self._published = published

    def sample(self, requests: Sequence[SampleRequest]) -> list[Rollout]:
        self._before_sampling()
        return self._pool.work(
            requests, self._chunk_size, lambda actor, chunk: actor.handle.sample.remote(chunk), "sampling", continuation
        )

    def sample_apart(self, requests: Sequence[SampleRequest]) -> list[RolloutHead]:
        """As `sample`; the rollouts stay where they were sampled, and the driver learns their heads.

        A chunk's are one object of the driver's, which lives as long as one of its heads does.
        """
        self._before_sampling()
        parts: dict[Any, Any] = {}

        def call(actor: Actor, chunk: Sequence[SampleRequest]) -> Any:
            heads, part = actor.handle.sample_apart.options(num_returns=2).remote(chunk)
            parts[heads] = part
            return heads

        def joined(items: Sequence[SampleRequest], heads: Any, found: ChunkHeads) -> list[RolloutHead]:
            return heads_of(items, found, parts.pop(heads))

        return self._pool.work(requests, self._chunk_size, call, "sampling", continuation, joined)

    def load(self, weights: PolicyWeights) -> None:
        """One copy into the object store; a worker pulls it, loads it and proves what it holds before it samples."""
        shared = ray.put(weights)
        doing = f"loading policy version {weights.version}"
        self._pool.load(
            Preparation(lambda actor: actor.handle.load.remote(shared), doing, lambda proof: _check(proof, weights))
        )
        self._published(weights.version)

    def load_adapters(self, adapters: Sequence[Adapter]) -> None:
        """As `load`, of several adapters that requests name by their versions."""
        shared = ray.put(adapters)

        def check(proofs: Sequence[PublishProof]) -> None:
            for proof, adapter in zip(proofs, adapters, strict=True):
                _check(proof, adapter)

        doing = f"loading {len(adapters)} adapters"
        self._pool.load(Preparation(lambda actor: actor.handle.load_adapters.remote(shared), doing, check))

    def serve_base(self) -> None:
        """Sample from the base model, without an adapter."""
        doing = "returning to the base model"
        self._pool.load(Preparation(lambda actor: actor.handle.serve_base.remote(), doing))


class SamplersApart:
    """Rollout workers as `rollout.requests.RolloutWorkers` whose rollouts stay elsewhere."""

    def __init__(self, group: SamplerGroup) -> None:
        self._group = group

    def sample(self, requests: Sequence[SampleRequest]) -> list[RolloutHead]:
        return self._group.sample_apart(requests)

    def load(self, weights: PolicyWeights) -> None:
        self._group.load(weights)


def _check(proof: PublishProof, sent: PolicyWeights) -> None:
    """Raises RunFailed when a worker proved something else than what it was sent."""
    if proof.version != sent.version or proof.num_tensors != len(sent.tensors):
        raise RunFailed(
            f"{proof.worker} proved {proof.num_tensors} tensors of version {proof.version}, {len(sent.tensors)} of "
            f"version {sent.version} were sent"
        )


class ScorerGroup:
    """All scorers as one: satisfies `reward.scorer.Scorer`."""

    def __init__(self, pool: Pool, chunk_size: int) -> None:
        self._pool, self._chunk_size = pool, chunk_size

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Responses that are elsewhere are fetched by the scorer that takes them."""

        def call(actor: Actor, chunk: Sequence[ScoreRequest]) -> Any:
            numbered, parts = by_number(chunk)
            return actor.handle.score.remote(numbered, *parts)

        return self._pool.work(requests, self._chunk_size, call, "scoring")


class ScorerHere:
    """A scorer in the driver, which fetches the responses that are elsewhere, within `timeout_s`."""

    def __init__(self, scorer: Scorer, timeout_s: float) -> None:
        self._scorer, self._timeout_s = scorer, timeout_s

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        numbered, parts = by_number(requests)
        return self._scorer.score(with_texts(numbered, fetched(parts, self._timeout_s)))
