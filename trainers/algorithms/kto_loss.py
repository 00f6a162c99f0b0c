"""The loss of KTO on labelled responses. Tensors are [B]."""

from typing import NamedTuple

import torch
from torch import Tensor

from plumbob.configs.settings.training import KtoSettings


class KtoRows(NamedTuple):
    """Attributes: of each response, [B].

    loss: to be minimised; the only one with a gradient.
    margins: beta (u - z0), its sign turned for bad responses: above 0 where the policy agrees with the label.
    rewards: beta u.
    """

    loss: Tensor
    margins: Tensor
    rewards: Tensor


def kto_rows(logprobs: Tensor, ref_logprobs: Tensor, desirable: Tensor, kl: float, settings: KtoSettings) -> KtoRows:
    """w (1 - sigmoid(beta (u - z0))) of good responses, w (1 - sigmoid(beta (z0 - u))) of bad ones, u = log(pi /
    pi_ref).

    Ethayarajh et al. 2024, arXiv 2402.01306, section 4.1.

    Args:
        logprobs: log pi of each whole response, summed over its tokens, [B].
        ref_logprobs: the same under pi_ref.
        desirable: bool [B], True for good responses.
        kl: z0, at least 0 and without a gradient.
    """
    rewards = settings.beta * (logprobs - ref_logprobs)
    advantage = rewards - settings.beta * kl
    margins = torch.where(desirable, advantage, -advantage)
    weights = torch.where(desirable, settings.desirable_weight, settings.undesirable_weight)
    return KtoRows(weights * torch.sigmoid(-margins), margins.detach(), rewards.detach())
