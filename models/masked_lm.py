"""A BERT-like encoder while it learns to guess masked words."""

from typing import Any

from torch import Tensor, nn
from transformers import AutoModelForMaskedLM

from plumbob.configs.settings.models import ModelRef
from plumbob.core.errors import UserError
from plumbob.models.loading import OpenedModel, load_weights, open_model


class MaskedWordModel(nn.Module):
    """The encoder as a function of positional tensors: ids and mask [B, T] -> logits [B, T, V]."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.encoder(input_ids=input_ids, attention_mask=attention_mask.long()).logits
        return logits


class OpenedEncoder(OpenedModel):
    """An encoder, whose tokenizer has a mask token."""

    def _open_tokenizer(self) -> Any:
        tokenizer = super()._open_tokenizer()
        if tokenizer.mask_token_id is None:
            raise UserError(
                f"{self.ref}: the tokenizer has no mask token, so no masked words can be learnt; give a BERT"
            )
        return tokenizer


def open_encoder(ref: ModelRef) -> OpenedEncoder:
    """Raises UserError when there is no such model, or its config cannot be read."""
    opened = open_model(ref)
    return OpenedEncoder(opened.ref, opened.source, opened.config)


def load_masked_lm(opened: OpenedEncoder) -> Any:
    """The encoder with its masked-word head. Raises UserError when it cannot be loaded."""
    return load_weights(AutoModelForMaskedLM, opened.ref, opened.source.base, makes_head=True)
