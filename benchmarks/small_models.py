"""Small Llamas that end by themselves after a chosen number of tokens: the same weights for both sides."""

import math
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

NEVER = -40.0
"""A logit that is not drawn."""
LOGIT_STD = 1.0
"""Of the other tokens' logits: their entropy is between a uniform choice's and a language model's."""


def mean_length(hazard: float, limit: int) -> float:
    """Mean of min(T, limit) where T is geometric: a response that ends with probability `hazard` at each token.

    The sum of P(T > t) for t from 0 to limit - 1, which is (1 - (1 - h)^limit) / h. Its EOS counts as a token.
    """
    return (1 - (1 - hazard) ** limit) / hazard


def hazard_of(mean: float, limit: int) -> float:
    """The probability of ending at each token that gives this mean length, by bisection: the mean falls with it."""
    low, high = 1e-9, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_length(middle, limit) > mean else (low, middle)
    return low


def save_llama(folder: Path, tokenizer_folder: Path, sizes: dict[str, Any], hazard: float | None) -> None:
    """Save a random float32 Llama whose EOS has the probability `hazard` at every token, or never comes (None).

    There is no bias in a Llama's head, so one coordinate of the residual stream is made constant: every embedding has
    the same number there, and no layer writes it. The final norm leaves it nearly constant, and the head gives it to
    the EOS alone, and to the padding token, which never comes.
    """
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    eos, pad, width = tokenizer.eos_token_id, tokenizer.pad_token_id, sizes["hidden_size"]
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        num_key_value_heads=sizes["num_attention_heads"],
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=pad,
        **sizes,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        embeddings, head = model.model.embed_tokens.weight, model.lm_head.weight
        embeddings.normal_(0, 1)
        embeddings[:, 0] = math.sqrt(width)
        for layer in model.model.layers:
            for written in (layer.self_attn.o_proj, layer.mlp.down_proj):
                written.weight[0] = 0
        head.normal_(0, LOGIT_STD / math.sqrt(width / 2))
        head[:, 0] = 0
        head[[eos, pad]] = 0
        states = model.model(torch.randint(len(tokenizer), (8, 64))).last_hidden_state
        constant = states[..., 0].mean()
        others = torch.logsumexp(model.lm_head(states), dim=-1).mean()
        head[eos, 0] = (NEVER if hazard is None else eos_logit(hazard, float(others))) / constant
        head[pad, 0] = NEVER / constant
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def eos_logit(hazard: float, others: float) -> float:
    """The logit with which the EOS has the probability `hazard`, where the other tokens' logsumexp is `others`."""
    return math.log(hazard / (1 - hazard)) + others
