"""The next-token objective, which pre-training and supervised fine-tuning share."""

from typing import Any

import torch
from torch import Tensor

from data.tokens import TokenBatch
from trainers.learners import LossSum, Pass
from trainers.losses import causal_lm_loss


def next_token_loss(forward: Any, batch: TokenBatch) -> LossSum:
    """-log p(token | tokens before it), summed over the loss mask; column 0, which nothing predicts, has no loss."""
    loss_mask = predicted_mask(batch)
    logprobs = forward(torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask), loss_mask, 1.0)
    loss = causal_lm_loss(logprobs, loss_mask.to(logprobs.device)).loss
    return LossSum(loss, {"loss": loss.detach()})


def predicted_mask(batch: TokenBatch) -> Tensor:
    """bool [B, T]: the loss mask without column 0."""
    loss_mask = torch.from_numpy(batch.loss_mask).clone()
    loss_mask[:, 0] = False
    return loss_mask


def num_predicted_tokens(batch: TokenBatch) -> float:
    return float(batch.loss_mask[:, 1:].sum())


def num_tokens(batch: TokenBatch) -> int:
    return int(batch.attention_mask.sum())


NEXT_TOKEN_PASSES = (Pass("policy", next_token_loss, num_predicted_tokens),)
