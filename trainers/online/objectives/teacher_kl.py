"""The KL from a teacher over the whole vocabulary, as a loss (distillation in its `full` form)."""

from typing import Any

import torch

from plumbob.trainers.learner.learner_protocol import LossSum
from plumbob.trainers.online.experience import Experience


def teacher_kl_sum(temperature: float, forward: Any, batch: Experience) -> LossSum:
    """w KL(policy || teacher) of each token's whole distribution, summed (GKD, arXiv 2306.13649, equation 4, reverse).

    The gradient goes through the policy's logits alone. That they decide too what is sampled is left out, as the paper
    does. Importance weights have no part: where a token was drawn does not depend on which it was.
    """
    kl = forward(batch.input_ids, batch.attention_mask, batch.action_mask, temperature, batch.teachers)
    mask, weights = (x.to(kl.device) for x in (batch.action_mask, batch.loss_weights))
    loss = torch.where(mask, weights * kl, 0.0).sum()
    return LossSum(loss, {"policy_loss": loss.detach()})
