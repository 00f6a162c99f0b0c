"""Log-probabilities of tokens from a causal model's logits: pure tensors."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from plumbob.models.forward.vocabulary import entropy_of

PORTION = 2**22
"""Logits that are taken together, but at least one row's: 16 MiB in float32."""


def token_logprobs(logits: Tensor, input_ids: Tensor, temperature: float) -> Tensor:
    """log pi(input_ids[:, t] | input_ids[:, :t]) [B, T] float32; column 0, which nothing predicts, is 0.

    The softmax is taken in float32, of the logits divided by the temperature, some rows at a time: beside the logits
    no second [B, T, V] tensor is made going forward, and only the logits' own gradient going back.

    Args:
        logits: [B, T, V]; column t predicts token t + 1, so the last column is not used.
        input_ids: int64 [B, T].
        temperature: above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    if logits.shape[:2] != input_ids.shape:
        raise ValueError(f"logits are for {tuple(logits.shape[:2])} tokens, input_ids for {tuple(input_ids.shape)}")
    predicted: Tensor = _TokenLogprobs.apply(logits, input_ids, temperature)
    return predicted


def token_entropies(logits: Tensor, temperature: float) -> Tensor:
    """-sum_j p_j log p_j in nats of the distribution that each token was drawn from [B, T] float32, without gradient.

    Of the same softmax as `token_logprobs`, some rows at a time; column 0, which nothing predicts, is 0.
    """
    found = torch.zeros(logits.shape[:2], dtype=torch.float32, device=logits.device)
    with torch.no_grad():
        for rows in _portions(logits):
            log_softmax = torch.log_softmax(logits[rows, :-1].float() / temperature, dim=-1)
            found[rows, 1:] = entropy_of(log_softmax.exp(), log_softmax)
    return found


def sequence_logprobs(logprobs: Tensor, mask: Tensor) -> Tensor:
    """Summed log-probability of the masked tokens of each row: [B, T] and bool [B, T] -> [B]."""
    return torch.where(mask, logprobs, 0.0).sum(dim=1)


def _portions(logits: Tensor) -> list[slice]:
    """Rows that are taken together."""
    size = max(1, PORTION // logits[0].numel()) if logits.numel() else 1
    return [slice(start, start + size) for start in range(0, logits.shape[0], size)]


def _probabilities(logits: Tensor, temperature: float) -> Tensor:
    return torch.softmax(logits.float() / temperature, dim=-1)


class _TokenLogprobs(torch.autograd.Function):
    """d log p(y) / d logits = (onehot(y) - p) / temperature, with p computed again in the backward."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, input_ids: Tensor, temperature: float) -> Tensor:
        ctx.save_for_backward(logits, input_ids)
        ctx.temperature = temperature
        logprobs = torch.zeros(input_ids.shape, dtype=torch.float32, device=logits.device)
        for rows in _portions(logits):
            log_softmax = torch.log_softmax(logits[rows, :-1].float() / temperature, dim=-1)
            logprobs[rows, 1:] = log_softmax.gather(-1, input_ids[rows, 1:, None]).squeeze(-1)
        return logprobs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        logits, input_ids = ctx.saved_tensors
        grad_logits = torch.zeros_like(logits)
        for rows in _portions(logits):
            token_grad = grad[rows, 1:, None] / ctx.temperature
            rows_grad = _probabilities(logits[rows, :-1], ctx.temperature).mul_(-token_grad)
            rows_grad.scatter_add_(-1, input_ids[rows, 1:, None], token_grad)
            grad_logits[rows, :-1] = rows_grad
        return grad_logits, None, None
