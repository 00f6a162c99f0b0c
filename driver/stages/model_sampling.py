"""Rollout workers that sample from a given model or adapter, outside the loop of PPO."""

from dataclasses import replace

from plumbob.cluster.session import Session
from plumbob.cluster.worker_groups import SamplerGroup
from plumbob.configs.paths import absolute
from plumbob.configs.settings.tuning.any_tuning import AnyTuning
from plumbob.configs.settings.workers import RolloutSettings
from plumbob.models.adapter import load_adapter
from plumbob.models.loading import OpenedPolicy
from plumbob.models.resolution import served_rank
from plumbob.rollout.samplers.open_sampler import serving_of
from plumbob.rollout.samplers.sampler import SamplerSpec

SHARED_LORA_RANK = 16
"""An engine has room for adapters of at least this rank, so that stages with small ones use one engine."""

FIRST_SERVED_VERSION = 1_000_000
"""Versions of adapters that were not just trained; a loop's own count from 0, and an engine may serve both in turn."""


def sampler_spec(opened: OpenedPolicy, rollout: RolloutSettings, tuning: AnyTuning | None = None) -> SamplerSpec:
    """What rollout workers are made from; each puts its own name in.

    Args:
        tuning: of the policy that is published to them; None where the model is sampled from as it is.
    """
    adapter = serving_of(rollout, opened, tuning)
    lora_rank = served_rank(opened.source, new_rank=0 if tuning is None else tuning.published_rank)
    quantization = opened.ref.quantization if rollout.quantised_base == "dequantised" else None
    return SamplerSpec(
        model=replace(
            opened.ref,
            name=absolute(opened.source.base),
            quantization=quantization,
            num_virtual_tokens=opened.num_virtual_tokens,
        ),
        worker="",
        engine=rollout.engine,
        temperature=rollout.temperature,
        max_tokens=rollout.max_tokens,
        lora_rank=max(lora_rank, SHARED_LORA_RANK) if adapter == "lora" else 0,
        tokenizer=absolute(opened.source.tokenizer_folder),
        tensor_parallel=rollout.tensor_parallel,
        num_threads=rollout.threads,
        adapter=adapter,
        partial_tokens=rollout.partial_tokens,
        environment=rollout.environment,
    )


class ModelSampling:
    """Serves one model after another, sharing engines where the base is the same."""

    def __init__(self, session: Session, rollout: RolloutSettings) -> None:
        self._session, self._rollout = session, rollout
        self._num_served = 0

    def serve(self, opened: OpenedPolicy) -> SamplerGroup:
        """Rollout workers that sample from the model until the next call."""
        adapter = opened.source.adapter
        spec = sampler_spec(opened, self._rollout)
        group = self._session.start_samplers(spec, self._rollout)
        if adapter is None:
            group.serve_base()
        else:
            self._num_served += 1
            group.load(load_adapter(adapter, FIRST_SERVED_VERSION + self._num_served))
        return group
