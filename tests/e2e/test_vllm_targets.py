"""What runs are told of LoRA's targets before vLLM is started, against vLLM's own classes."""

from importlib import import_module

from vllm.model_executor.models.registry import _TEXT_GENERATION_MODELS

from plumbob.models.tuning.targets import SERVED_EMBEDDINGS


def test_where_vllm_serves_lora_on_embeddings() -> None:
    def embeddings(architecture: str) -> set[str]:
        module, name = _TEXT_GENERATION_MODELS[architecture]
        served = getattr(import_module(f"vllm.model_executor.models.{module}"), name)
        assert served.supports_lora
        return set(served.embedding_modules)

    for architecture in SERVED_EMBEDDINGS:
        assert embeddings(architecture) == {"embed_tokens", "lm_head"}, architecture
    for architecture in ("Qwen2ForCausalLM", "MistralForCausalLM", "Gemma3ForCausalLM", "OPTForCausalLM"):
        assert embeddings(architecture) == set(), architecture
