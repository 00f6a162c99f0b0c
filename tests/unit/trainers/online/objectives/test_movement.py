"""What an update has moved, by hand."""

import math

import pytest
import torch

from plumbob.trainers.online.objectives.movement import SQUARED_GAP, UPDATE_KL, movement

NAN = float("nan")


def test_movement_by_hand() -> None:
    """Ratios to old log-probs of -1 are 1.5, 1 and 0.5; k3 of KL(old || new) is ratio - 1 - ln ratio of each token."""
    logprobs = (torch.tensor([[1.5, 1.0, 0.5, NAN]]).log() - 1.0).requires_grad_()
    old, mask = torch.tensor([[-1.0, -1.0, -1.0, NAN]]), torch.tensor([[True, True, True, False]])
    found = movement(logprobs, old, mask, torch.tensor([[0.25, 0.5, 2.0, NAN]]))
    assert found[UPDATE_KL].item() == pytest.approx(
        0.25 * (0.5 - math.log(1.5)) + 2.0 * (-0.5 - math.log(0.5)), rel=1e-5
    )
    assert found[SQUARED_GAP].item() == pytest.approx(0.25 * math.log(1.5) ** 2 + 2.0 * math.log(0.5) ** 2, rel=1e-5)
    assert not any(value.requires_grad for value in found.values())


def test_a_huge_log_ratio_is_finite() -> None:
    # exp(500) overflows float32.
    found = movement(torch.tensor([[0.0]]), torch.tensor([[-500.0]]), torch.tensor([[True]]), torch.ones(1, 1))
    assert torch.isfinite(found[UPDATE_KL])
