"""From a sampler's settings to the sampler, vLLM or transformers, and to what its engine can serve."""

from typing import assert_never

from plumbob.configs.settings.workers import SamplerEngine, TransformersEngine, VllmEngine
from plumbob.models.tuning.adapter_support import WHAT_PEFT_LOADS, AdapterSupport
from plumbob.rollout.samplers.sampler import Sampler, SamplerSpec
from plumbob.rollout.samplers.vllm.support import VLLM_SUPPORT


def open_sampler(spec: SamplerSpec) -> Sampler:
    match spec.engine:
        case VllmEngine():
            from plumbob.rollout.samplers.vllm.vllm_sampler import VllmSampler

            return VllmSampler(spec)
        case TransformersEngine():
            from plumbob.rollout.samplers.transformers_sampler import TransformersSampler

            return TransformersSampler(spec)
        case _:
            assert_never(spec.engine)


def support_of(engine: SamplerEngine) -> AdapterSupport:
    """Which adapters the engine can load."""
    match engine:
        case VllmEngine():
            return VLLM_SUPPORT
        case TransformersEngine():
            return WHAT_PEFT_LOADS
        case _:
            assert_never(engine)
