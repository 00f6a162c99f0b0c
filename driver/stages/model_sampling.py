"""Rollout workers that sample from a given model or adapter, outside the loop of PPO."""

from plumbob.cluster.session import Session
from plumbob.cluster.worker_groups import SamplerGroup
from plumbob.configs.base import Dtype
from plumbob.configs.paths import absolute
from plumbob.configs.settings.models import LoraTuning
from plumbob.configs.settings.workers import RolloutSettings
from plumbob.models.adapter import load_adapter
from plumbob.models.loading import ModelSource, served_rank
from plumbob.rollout.samplers.sampler import SamplerSpec

SHARED_LORA_RANK = 16
"""An engine has room for adapters of at least this rank, so that stages with small ones use one engine."""

FIRST_SERVED_VERSION = 1_000_000
"""Versions of adapters that were not just trained; a loop's own count from 0, and an engine may serve both in turn."""


def sampler_spec(
    source: ModelSource, rollout: RolloutSettings, dtype: Dtype, trust_remote_code: bool, lora_rank: int
) -> SamplerSpec:
    """What rollout workers are made from; each puts its own name in."""
    return SamplerSpec(
        model=absolute(source.base),
        worker="",
        engine=rollout.engine,
        dtype=dtype,
        temperature=rollout.temperature,
        max_tokens=rollout.max_tokens,
        lora_rank=max(lora_rank, SHARED_LORA_RANK),
        trust_remote_code=trust_remote_code,
        tokenizer=absolute(source.tokenizer_folder),
        tensor_parallel=rollout.tensor_parallel,
        num_threads=rollout.num_threads,
        slice_tokens=rollout.partial_tokens,
    )


class ModelSampling:
    """Serves one model after another, sharing engines where the base is the same."""

    def __init__(self, session: Session, rollout: RolloutSettings, dtype: Dtype, trust_remote_code: bool) -> None:
        self._session, self._rollout = session, rollout
        self._dtype, self._trust_remote_code = dtype, trust_remote_code
        self._num_served = 0

    def of(self, source: ModelSource) -> SamplerGroup:
        """Rollout workers that sample from `source` until the next call."""
        rank = 0 if source.adapter is None else served_rank(source, LoraTuning())
        spec = sampler_spec(source, self._rollout, self._dtype, self._trust_remote_code, rank)
        group = self._session.samplers(spec, self._rollout)
        if source.adapter is None:
            group.serve_base()
        else:
            self._num_served += 1
            group.load(load_adapter(source.adapter, FIRST_SERVED_VERSION + self._num_served))
        return group
