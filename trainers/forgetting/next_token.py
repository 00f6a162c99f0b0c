"""The next-token objective, which pre-training and supervised fine-tuning share."""

from typing import Any

import torch
from torch import Tensor

from plumbob.data.tokenization import TaskBatch, TokenBatch
from plumbob.trainers.algorithms.lm_losses import causal_lm_loss
from plumbob.trainers.learner.learner_protocol import LossSum, LossTerm


def next_token_loss(forward: Any, batch: TokenBatch) -> LossSum:
    """-log p(token | tokens before it), summed over the loss mask; a row's first token, unpredicted, has no loss."""
    loss_mask = predicted_mask(batch)
    logprobs = forward(torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask), loss_mask, 1.0)
    loss = causal_lm_loss(logprobs, loss_mask.to(logprobs.device)).loss
    return LossSum(loss, {"loss": loss.detach()})


def predicted_mask(batch: TokenBatch) -> Tensor:
    """bool [B, T]: the loss mask without each row's first token."""
    return torch.from_numpy(batch.loss_mask) & not_first(torch.from_numpy(batch.attention_mask))


def not_first(attention_mask: Tensor) -> Tensor:
    """bool [B, T]: the real tokens but each row's first, which nothing predicts; padding may stand on either side."""
    return attention_mask & (attention_mask.cumsum(dim=1) > 1)


def num_predicted_tokens(batch: TokenBatch) -> float:
    return float(predicted_mask(batch).sum())


def num_tokens(batch: TokenBatch) -> int:
    return int(batch.attention_mask.sum())


NEXT_TOKEN_LOSS_TERMS = (LossTerm("policy", next_token_loss, num_predicted_tokens),)


def task_loss(forward: Any, batch: TaskBatch) -> LossSum:
    """The same of rows of several tasks, each read with its task's own soft prompt."""
    tasks = torch.from_numpy(batch.tasks)
    return next_token_loss(lambda *inputs: forward(*inputs, None, tasks), batch.tokens)


def num_predicted_of_tasks(batch: TaskBatch) -> float:
    return num_predicted_tokens(batch.tokens)


TASK_LOSS_TERMS = (LossTerm("policy", task_loss, num_predicted_of_tasks),)
