"""Prompt and response as the input of a BERT: encoded and padded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Pair = tuple[str, str]


# ---------------------------------------------------------------------------------------------------------- the text


@dataclass(frozen=True)
class EncodedPair:
    """A prompt and a response as the model's tokens, special ones included: both lists have one length."""

    input_ids: list[int]
    token_type_ids: list[int]


def encode_pairs(tokenizer: Any, pairs: Sequence[Pair], max_tokens: int) -> list[EncodedPair]:
    """(prompt, response) as text pairs of at most `max_tokens` tokens, special ones included.

    What is too long loses the beginning of the prompt first, since the end of a dialogue says what is being answered;
    a response that does not fit even alone loses its end.
    """
    if not pairs:
        return []
    room = max_tokens - tokenizer.num_special_tokens_to_add(pair=True)
    prompts, responses = (
        tokenizer(list(texts), add_special_tokens=False, verbose=False).encodings for texts in zip(*pairs, strict=True)
    )
    encoded = []
    for prompt, response in zip(prompts, responses, strict=True):
        response.truncate(room, direction="right")
        prompt.truncate(room - len(response), direction="left")
        whole = tokenizer.backend_tokenizer.post_process(prompt, response)
        encoded.append(EncodedPair(whole.ids, whole.type_ids))
    return encoded


def pad_pairs(tokenizer: Any, encoded: Sequence[EncodedPair]) -> dict[str, Tensor]:
    """What the model is called with: int64 [B, T] each, padded on the right to the longest of them."""
    width = max(len(pair.input_ids) for pair in encoded)
    input_ids = torch.full((len(encoded), width), tokenizer.pad_token_id, dtype=torch.long)
    token_type_ids = torch.zeros_like(input_ids)
    attention_mask = torch.zeros_like(input_ids)
    for row, pair in enumerate(encoded):
        length = len(pair.input_ids)
        input_ids[row, :length] = torch.tensor(pair.input_ids)
        token_type_ids[row, :length] = torch.tensor(pair.token_type_ids)
        attention_mask[row, :length] = 1
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    if "token_type_ids" in tokenizer.model_input_names:
        inputs["token_type_ids"] = token_type_ids
    return inputs
