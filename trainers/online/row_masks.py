"""Which tokens of a row are learnt, with which weight in the loss, and how many a response has."""

from typing import Literal, assert_never

import torch
from torch import Tensor

from plumbob.trainers.online.trajectories import Trajectories


def train_masks(trajectories: Trajectories, mask_truncated: bool) -> tuple[Tensor, Tensor]:
    """Attention mask and action mask [B, T] of what is learnt from: of a response that is left out, the prompt alone.

    Overlong filtering (DAPO, Yu et al. 2025, arXiv 2503.14476, section 3.4). A response that is left out is in no
    group and no statistic of the estimator, so that RLOO's expected update goes along grad E[R | it ends]. Left in the
    baseline b alone it would add (E[R | it ends] - b) grad log P(it ends): a bad score of what was cut would push up
    all that ends, whatever it says.
    """
    attention, actions = trajectories.attention_mask, trajectories.action_mask
    if not mask_truncated:
        return attention, actions
    return kept_tokens(attention, actions, trajectories.ends_with_eos[:, None])


def kept_tokens(attention_mask: Tensor, action_mask: Tensor, is_kept: Tensor) -> tuple[Tensor, Tensor]:
    """Both masks [B, T], of a row that is not kept (bool [B, 1]) the prompt alone."""
    return attention_mask & (is_kept | (action_mask.cumsum(dim=1) == 0)), action_mask & is_kept


def response_lengths(action_mask: Tensor) -> Tensor:
    """Int64 [B]: tokens from each row's first action to its last, also those between that the policy did not write."""
    columns = torch.arange(action_mask.shape[1], device=action_mask.device)
    last = torch.where(action_mask, columns, -1).amax(dim=1)
    first = torch.where(action_mask, columns, action_mask.shape[1]).amin(dim=1)
    return torch.where(action_mask.any(dim=1), last - first + 1, 0)


def loss_weights(action_mask: Tensor, mean: Literal["token", "response"]) -> Tensor:
    """w [B, T], so that sum(w x) / sum(w) over any rows is the mean asked for; 0 outside the mask.

    `token`: w = 1, the mean over tokens. `response`: w = 1/|y|, the mean over responses of their tokens' mean; sum(w)
    is then the number of rows with an action.
    """
    match mean:
        case "token":
            return action_mask.float()
        case "response":
            return action_mask / action_mask.sum(dim=1, keepdim=True).clamp(min=1)
        case _:
            assert_never(mean)
