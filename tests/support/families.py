"""Tiny causal models of several families, LoRA on them, and their gradients by name."""

from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor, nn
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from plumbob.models.tuning.peft_adapters import add_adapters

NUM_WORDS = 40
SIZES = {
    "vocab_size": NUM_WORDS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
FAMILIES: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "llama, tied": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=16)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=NUM_WORDS, n_positions=32, n_embd=32, n_layer=2, n_head=2, initializer_range=0.3)
    ),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=16, final_logit_softcapping=3.0)),
    "cohere": lambda: CohereForCausalLM(CohereConfig(**SIZES, logit_scale=0.25)),
    "granite": lambda: GraniteForCausalLM(GraniteConfig(**SIZES, logits_scaling=4.0)),
}


def family(name: str, without_dropout: bool = False) -> Any:
    torch.manual_seed(0)
    model = FAMILIES[name]().eval()
    if without_dropout:
        model.config.attn_pdrop = 0.0
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    return model


def with_lora(model: Any, targets: str | list[str], names: tuple[str, ...] = ("policy",)) -> Any:
    """Adapters that are not zero, and a frozen base."""
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM")
    adapted = add_adapters(model, config, names)
    for name, parameter in adapted.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_B" in name:
            nn.init.normal_(parameter, 0.0, 0.1)
    return adapted.eval()


def weighted_sum(logprobs: Tensor) -> Tensor:
    """Of which every token's gradient differs."""
    return (logprobs * torch.linspace(0.5, 2.0, logprobs.numel()).reshape(logprobs.shape)).sum()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    return found
