"""From a sampler's settings to the sampler: vLLM or transformers."""

from typing import assert_never

from plumbob.configs.settings.workers import TransformersEngine, VllmEngine
from plumbob.rollout.samplers.sampler import Sampler, SamplerSpec


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
