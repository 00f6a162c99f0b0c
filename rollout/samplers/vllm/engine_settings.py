"""What a vLLM engine is started with: its process's environment and its arguments."""

import os
from typing import Any

from plumbob.configs.settings.workers import VllmEngine
from plumbob.rollout.samplers.sampler import SamplerSpec


def environment(spec: SamplerSpec, settings: VllmEngine) -> dict[str, str]:
    """What vLLM reads when it is imported and when its engine starts."""
    variables = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"),
        "OMP_NUM_THREADS": str(spec.num_threads),
    }
    return variables | ({"TORCHDYNAMO_DISABLE": "1"} if settings.enforce_eager else {})


def engine_arguments(
    spec: SamplerSpec, settings: VllmEngine, max_lora_rank: int, num_slots: int, on_cpu: bool
) -> dict[str, Any]:
    """The engine's arguments, by vLLM's names.

    Args:
        max_lora_rank: one that vLLM accepts; 0 when no adapter will be loaded.
        num_slots: adapters that the engine holds at once.
    """
    arguments: dict[str, Any] = {
        "model": spec.model.name,
        "trust_remote_code": spec.model.trust_remote_code,
        "dtype": spec.model.dtype,
        "max_num_seqs": settings.max_num_seqs,
        "enforce_eager": settings.enforce_eager,
        "tensor_parallel_size": spec.tensor_parallel,
        "distributed_executor_backend": "uni" if spec.tensor_parallel == 1 else "mp",
        # Without it log-probs ignore the temperature.
        "logprobs_mode": "processed_logprobs",
        # The model's own generation config would add top-p, top-k and penalties that the learner does not apply.
        "generation_config": "vllm",
        "skip_tokenizer_init": True,
        "disable_log_stats": True,
        "enable_prefix_caching": True,
    }
    if max_lora_rank:
        arguments |= {"enable_lora": True, "max_lora_rank": max_lora_rank}
        arguments |= {"max_loras": num_slots, "max_cpu_loras": num_slots}
    if on_cpu:
        # A prompt in chunks rewinds the request's generator, which a CPU generator cannot.
        arguments |= {"enable_chunked_prefill": False, "kv_cache_memory_bytes": int(settings.kv_cache_gib * 2**30)}
    else:
        arguments |= {"gpu_memory_utilization": settings.gpu_memory_fraction}
    return arguments


def main_message(error: Exception) -> str:
    """The sentence of vLLM's error that says what is wrong: pydantic puts a heading before it."""
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    return next((line for line in lines if line.startswith("Value error, ")), lines[0] if lines else repr(error))
