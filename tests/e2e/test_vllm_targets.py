"""What runs are told of vLLM's support for LoRA before it is started, against vLLM's own classes."""

from importlib import import_module

import pytest
from vllm.model_executor.models.registry import _TEXT_GENERATION_MODELS

from plumbob.core.errors import UserError
from plumbob.rollout.samplers.vllm.support import VLLM_SUPPORT, accepted_rank


def test_where_vllm_serves_lora_on_embeddings() -> None:
    def embeddings(architecture: str) -> set[str]:
        module, name = _TEXT_GENERATION_MODELS[architecture]
        served = getattr(import_module(f"vllm.model_executor.models.{module}"), name)
        assert served.supports_lora
        return set(served.embedding_modules)

    assert VLLM_SUPPORT.embedding_architectures is not None
    for architecture in VLLM_SUPPORT.embedding_architectures:
        assert embeddings(architecture) == {"embed_tokens", "lm_head"}, architecture
    for architecture in ("Qwen2ForCausalLM", "MistralForCausalLM", "Gemma3ForCausalLM", "OPTForCausalLM"):
        assert embeddings(architecture) == set(), architecture


def test_the_largest_rank_of_an_adapter() -> None:
    assert VLLM_SUPPORT.max_rank is not None
    assert accepted_rank(VLLM_SUPPORT.max_rank) == VLLM_SUPPORT.max_rank
    with pytest.raises(UserError, match=rf"serves LoRA up to rank {VLLM_SUPPORT.max_rank}"):
        accepted_rank(VLLM_SUPPORT.max_rank + 1)
