"""The Ray actor around one sampler (RolloutWorker)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbob.cluster.workers.worker import NO_SOURCES, Worker
from plumbob.core.garbage import uncollected
from plumbob.core.hidden_package import uncompiled
from plumbob.models.adapter import Adapter, PolicyWeights
from plumbob.rollout.rollout_records import Rollout, SampleRequest

if TYPE_CHECKING:
    from plumbob.rollout.publish_proof import PublishProof
    from plumbob.rollout.rollout_heads import ChunkHeads
    from plumbob.rollout.samplers.sampler import SamplerSpec


class RolloutWorker(Worker):
    """One sampler."""

    def __init__(self, log: Path, num_threads: int, packages: Mapping[str, str], probe: Path) -> None:
        super().__init__(log, packages, probe)
        self._sampler: Any = None

    def open(self, spec: "SamplerSpec", sources: Mapping[str, str] = NO_SOURCES) -> None:
        """Another model instead of one that is open.

        Args:
            sources: the environment's -> digest of its source on the driver's host.
        """
        self._check_host((spec.model.name, spec.tokenizer), sources)
        with uncollected(), uncompiled():
            from plumbob.rollout.episodes.episode_sampler import with_environment
            from plumbob.rollout.samplers.open_sampler import open_sampler

        self.close()
        self._sampler = with_environment(open_sampler(spec), spec)

    def sample(self, requests: Sequence[SampleRequest]) -> list[Rollout]:
        from plumbob.rollout.samplers.sampler import sample

        return sample(self._sampler, requests)

    def sample_apart(self, requests: Sequence[SampleRequest]) -> "tuple[ChunkHeads, list[Rollout]]":
        """As `sample`, in two: what the driver is to know, and the rest."""
        from plumbob.rollout.rollout_heads import ChunkHeads

        rollouts = self.sample(requests)
        return ChunkHeads.of(rollouts), rollouts

    def load(self, weights: PolicyWeights) -> "PublishProof":
        return self._sampler.load(weights)

    def load_adapters(self, adapters: Sequence[Adapter]) -> "list[PublishProof]":
        return self._sampler.load_adapters(adapters)

    def serve_base(self) -> None:
        self._sampler.serve_base()

    def close(self) -> None:
        if self._sampler is not None:
            self._sampler.close()
            self._sampler = None
