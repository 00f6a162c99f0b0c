"""Prompt and response as the input of a BERT: encoded and padded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Encoding
from torch import Tensor

from plumbob.data.texts.control_tokens import ControlTokens, unmarked

Pair = tuple[str, str]


# ---------------------------------------------------------------------------------------------------------- the text


@dataclass(frozen=True)
class EncodedPair:
    """A prompt and a response as the model's tokens, special ones included: both lists have one length."""

    input_ids: list[int]
    token_type_ids: list[int]


def encode_pairs(tokenizer: Any, pairs: Sequence[Pair], max_tokens: int) -> list[EncodedPair]:
    """(prompt, response) as text pairs of at most `max_tokens` tokens, special ones included.

    The texts are letters throughout: a control token of the model's own that one spells is none. What is too long loses
    the beginning of the prompt first, since the end of a dialogue says what is being answered; a response that does not
    fit even alone loses its end.
    """
    if not pairs:
        return []
    room = max_tokens - tokenizer.num_special_tokens_to_add(pair=True)
    prompts, responses = (_letters(tokenizer, texts) for texts in zip(*pairs, strict=True))
    encoded = []
    for prompt, response in zip(prompts, responses, strict=True):
        response.truncate(room, direction="right")
        prompt.truncate(room - len(response), direction="left")
        whole = tokenizer.backend_tokenizer.post_process(prompt, response)
        encoded.append(EncodedPair(whole.ids, whole.type_ids))
    return encoded


def _letters(tokenizer: Any, texts: Sequence[str]) -> list[Encoding]:
    control, plain = ControlTokens(tokenizer), [unmarked(text) for text in texts]
    encoded = _encodings(tokenizer, plain)
    return [
        # A vocabulary of words may have the spelt token as one of them.
        Encoding.merge(_encodings(tokenizer, control.cut(text))) if control.spelt_as_ids(text, own.ids) else own
        for text, own in zip(plain, encoded, strict=True)
    ]


def _encodings(tokenizer: Any, texts: Sequence[str]) -> list[Encoding]:
    found: list[Encoding] = tokenizer(
        list(texts), add_special_tokens=False, verbose=False, split_special_tokens=True
    ).encodings
    return found


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
