"""Rollout workers that sample from a given model or adapter, outside the online loop."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from plumbob.cluster.session import Session
from plumbob.cluster.worker_groups import SamplerGroup
from plumbob.configs.paths import absolute
from plumbob.configs.runs import EvalRun
from plumbob.configs.settings.tuning.any_tuning import AnyTuning
from plumbob.configs.settings.workers import RolloutSettings
from plumbob.models.adapter import Adapter, load_adapter
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


def rollout_of(run: EvalRun) -> RolloutSettings:
    """How an evaluation samples: with adapters beside the base's weights where several are held there at once."""
    is_alone = run.policy is None or not run.policy.also
    return run.rollout if is_alone else run.rollout.model_copy(update={"adapter": "lora"})


class ModelSampling:
    """Serves one model after another, sharing engines where the base is the same; or several adapters at once."""

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
            group.load(self._next(adapter))
        return group

    def load_adapters(self, policies: Sequence[OpenedPolicy]) -> tuple[SamplerGroup, tuple[int, ...]]:
        """Rollout workers that hold adapters of one kind and base at once, until the next call; the version of each.

        Args:
            policies: no more than NUM_HELD.
        """
        specs = [sampler_spec(each, self._rollout) for each in policies]
        num_virtual = max(each.model.num_virtual_tokens for each in specs)
        model = replace(specs[0].model, num_virtual_tokens=num_virtual)
        spec = replace(specs[0], model=model, lora_rank=max(each.lora_rank for each in specs))
        group = self._session.start_samplers(spec, self._rollout)
        adapters = [self._next(each.source.adapter) for each in policies if each.source.adapter is not None]
        group.load_adapters(adapters)
        return group, tuple(adapter.version for adapter in adapters)

    def _next(self, adapter: Path) -> Adapter:
        self._num_served += 1
        return load_adapter(adapter, FIRST_SERVED_VERSION + self._num_served)
