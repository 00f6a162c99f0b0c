"""What a small policy gives fixed ids in a role, and the same by plain transformers and PEFT."""

from typing import Any

import torch
from torch import Tensor

from plumbob.models.adapter import ModelRole
from plumbob.models.policy import PolicyModel

TEMPERATURE = 0.8
IDS = torch.randint(2, 280, (2, 8), generator=torch.Generator().manual_seed(2))
MASK = torch.ones_like(IDS, dtype=torch.bool)
ACTIONS = torch.arange(8).expand(2, 8) >= 3


def response(model: PolicyModel, role: ModelRole) -> Tensor:
    """[2, 8]: what the model gives as that role: log-probs of the actions, or values."""
    model.eval()
    with model.role(role), torch.no_grad():
        found: Tensor = model(IDS, MASK, ACTIONS, TEMPERATURE)
    return found


def plain(model: Any) -> Tensor:
    """The same log-probs with nothing of ours: log softmax of the logits over the temperature, those of a soft prompt's
    virtual tokens left out."""
    with torch.no_grad():
        logprobs = torch.log_softmax(model.eval()(input_ids=IDS).logits[:, -IDS.shape[1] : -1] / TEMPERATURE, dim=-1)
    chosen = logprobs.gather(-1, IDS[:, 1:, None])[..., 0]
    return torch.where(ACTIONS, torch.nn.functional.pad(chosen, (1, 0)), 0.0)
