"""A BERT-like encoder while it learns to guess masked words."""

from typing import Any

from torch import Tensor, nn
from transformers import AutoModelForMaskedLM

from plumbob.core.errors import UserError, first_line
from plumbob.models.loading import located, open_tokenizer

KEY = "reward.model"


class MaskedWordModel(nn.Module):
    """The encoder as a function of positional tensors: ids and mask [B, T] -> logits [B, T, V]."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.encoder(input_ids=input_ids, attention_mask=attention_mask.long()).logits
        return logits


def load_encoder_tokenizer(name: str) -> Any:
    """The tokenizer of an encoder that learns masked words.

    Raises:
        UserError: there is none, or it has no mask token.
    """
    tokenizer = open_tokenizer(located(name, KEY), KEY)
    if tokenizer.mask_token_id is None:
        raise UserError(f"{KEY}={name}: the tokenizer has no mask token, so no masked words can be learnt; give a BERT")
    return tokenizer


def load_masked_lm(name: str) -> tuple[Any, Any]:
    """(model, tokenizer) of a masked language model. Raises UserError when it cannot be loaded."""
    try:
        model = AutoModelForMaskedLM.from_pretrained(located(name, KEY), use_safetensors=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{KEY}={name}: cannot be loaded as a masked language model: {first_line(error)}") from error
    return model, load_encoder_tokenizer(name)
