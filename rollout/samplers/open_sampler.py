"""From a sampler's settings to the sampler, vLLM or transformers, and to what its engine does with a policy."""

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from plumbob.configs.base import Dtype
from plumbob.configs.settings.tuning.any_tuning import AnyTuning
from plumbob.configs.settings.tuning.weights import WeightTuning
from plumbob.configs.settings.workers import (
    AdapterServing,
    RolloutSettings,
    SamplerEngine,
    TransformersEngine,
    VllmEngine,
)
from plumbob.core.garbage import uncollected
from plumbob.models.loading import OpenedModel
from plumbob.models.tuning.adapter_support import WHAT_PEFT_LOADS, AdapterSupport, is_plain_lora
from plumbob.rollout.samplers.dequantised_base import dequantised
from plumbob.rollout.samplers.sampler import Sampler, SamplerSpec
from plumbob.rollout.samplers.vllm.support import MERGED_SUPPORT, VLLM_SUPPORT, WEIGHTS_SUPPORT

MERGED_ALONE = (
    "vLLM computes plain LoRA alone beside the base: each version of this policy is merged into its weights, and proven"
)


def open_sampler(spec: SamplerSpec) -> Sampler:
    spec = replace(spec, model=dequantised(spec.model))
    match spec.engine:
        case VllmEngine():
            with uncollected():
                from plumbob.rollout.samplers.vllm.vllm_sampler import VllmSampler

            return VllmSampler(spec)
        case TransformersEngine():
            from plumbob.rollout.samplers.transformers_sampler import TransformersSampler

            return TransformersSampler(spec)
        case _:
            assert_never(spec.engine)


def adapter_serving(
    rollout: RolloutSettings, dtype: Dtype, architectures: Sequence[str], plain_lora: bool = True
) -> AdapterServing:
    """What all rollout workers of a run do with adapters on such a model, where the settings leave it open too.

    Args:
        plain_lora: whether the adapters are what vLLM computes beside the base's weights; others it can only merge.
    """
    if rollout.adapter is not None:
        return rollout.adapter
    assert MERGED_SUPPORT.merged_into is not None
    is_exact = dtype == "float32" and not MERGED_SUPPORT.merged_into.isdisjoint(architectures)
    is_wanted = rollout.num_gpus == 0 or not plain_lora
    return "merged" if is_exact and is_wanted and rollout.can_merge else "lora"


def serving_of(rollout: RolloutSettings, opened: OpenedModel, tuning: AnyTuning | None = None) -> AdapterServing:
    """As `adapter_serving`, of a model that is there.

    Args:
        tuning: of the policy that is published; weights of the model itself are held as merged ones are.
    """
    if isinstance(tuning, WeightTuning):
        return "merged"
    plain = is_plain_lora(opened.source.adapter, tuning)
    return adapter_serving(rollout, opened.ref.dtype, opened.config.architectures or (), plain)


def support_of(engine: SamplerEngine, serving: AdapterServing = "lora") -> AdapterSupport:
    """Which adapters the engine can load."""
    match engine:
        case VllmEngine():
            return MERGED_SUPPORT if serving == "merged" else VLLM_SUPPORT
        case TransformersEngine():
            return WHAT_PEFT_LOADS
        case _:
            assert_never(engine)


def support_for(rollout: RolloutSettings, opened: OpenedModel, tuning: AnyTuning | None = None) -> AdapterSupport:
    """What the rollout workers can load: adapters on the model, or weights of its own where `tuning` trains them."""
    if isinstance(tuning, WeightTuning) and isinstance(rollout.engine, VllmEngine):
        return WEIGHTS_SUPPORT
    return support_of(rollout.engine, serving_of(rollout, opened, tuning))


def support_for_new(rollout: RolloutSettings, dtype: Dtype, architecture: str, tuning: AnyTuning) -> AdapterSupport:
    """As `support_for`, of a model that is yet to be made."""
    return support_of(rollout.engine, adapter_serving(rollout, dtype, (architecture,), is_plain_lora(None, tuning)))


def serving_notes(rollout: RolloutSettings, opened: OpenedModel, tuning: AnyTuning) -> tuple[str, ...]:
    """What is to be known of sampling with adapters that vLLM does not compute beside the base's weights."""
    if isinstance(rollout.engine, TransformersEngine) or is_plain_lora(opened.source.adapter, tuning):
        return ()
    return (MERGED_ALONE,)
