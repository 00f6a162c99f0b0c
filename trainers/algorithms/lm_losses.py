"""Language-model losses, next token and masked word, each a SUM over tokens."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class TokenLoss(NamedTuple):
    """Attributes: scalars. loss: summed negative log-likelihood in nats. num_tokens: what it is summed over."""

    loss: Tensor
    num_tokens: Tensor


def causal_lm_loss(logprobs: Tensor, mask: Tensor) -> TokenLoss:
    """-sum_t log p(token_t | tokens before it), from the log-probs [B, T] of the masked tokens (Bengio et al. 2003)."""
    return TokenLoss(-torch.where(mask, logprobs, 0.0).sum(), mask.sum())


def masked_lm_loss(logits: Tensor, labels: Tensor, mask: Tensor) -> TokenLoss:
    """-sum_t log p(word_t | the text with it hidden), the words to be guessed (BERT, Devlin et al. 2019, 1810.04805).

    Args:
        logits: [B, T, V], of each word at its own column.
        labels: int64 [B, T]; read where `mask` is set.
    """
    return TokenLoss(F.cross_entropy(logits[mask].float(), labels[mask], reduction="sum"), mask.sum())
