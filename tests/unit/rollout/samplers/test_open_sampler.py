"""What rollout workers do with adapters where the settings leave it open."""

from typing import Any

import pytest

from plumbob.configs.settings.workers import RolloutSettings
from plumbob.rollout.samplers.open_sampler import adapter_serving

LLAMA = ("LlamaForCausalLM",)


@pytest.mark.parametrize(
    ("given", "dtype", "architectures", "serving"),
    [
        ({}, "float32", LLAMA, "merged"),
        # Merged weights would be rounded.
        ({}, "bfloat16", LLAMA, "lora"),
        # Whose weights nobody has read back.
        ({}, "float32", ("OPTForCausalLM",), "lora"),
        ({}, "float32", (), "lora"),
        ({"num_gpus": 1}, "float32", LLAMA, "lora"),
        ({"tensor_parallel": 2}, "float32", LLAMA, "lora"),
        ({"engine": {"kind": "vllm", "enforce_eager": False}}, "float32", LLAMA, "lora"),
        ({"engine": {"kind": "transformers"}}, "float32", LLAMA, "lora"),
        ({"adapter": "lora"}, "float32", LLAMA, "lora"),
        ({"adapter": "merged"}, "bfloat16", LLAMA, "merged"),
    ],
)
def test_adapters_are_merged_where_that_is_exact(
    given: dict[str, Any], dtype: Any, architectures: tuple[str, ...], serving: str
) -> None:
    assert adapter_serving(RolloutSettings(**given), dtype, architectures) == serving
