"""KTO's loss and its gradient by hand."""

import pytest
import torch

from plumbob.configs.settings.training import KtoSettings
from plumbob.trainers.algorithms.kto_loss import kto_rows

SETTINGS = KtoSettings(beta=0.5, desirable_weight=2.0, undesirable_weight=3.0)


def test_kto_by_hand() -> None:
    # u = 3, -1, 3, -1; z0 = 1: beta (u - z0) = 1, -1, 1, -1. Good, good, bad, bad.
    # Losses 2 sigmoid(-1), 2 sigmoid(1), 3 sigmoid(1), 3 sigmoid(-1), with sigmoid(1) = 0.731059.
    # Slopes: w beta sigmoid(1) sigmoid(-1) = 0.5 w 0.196612, down for good responses and up for bad ones.
    logprobs = torch.tensor([-5.0, -9.0, -5.0, -9.0], requires_grad=True)
    desirable = torch.tensor([True, True, False, False])
    found = kto_rows(logprobs, torch.full((4,), -8.0), desirable, 1.0, SETTINGS)
    found.loss.sum().backward()
    assert found.loss.tolist() == pytest.approx([0.537883, 1.462117, 2.193176, 0.806824], abs=2e-6)
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([-0.196612, -0.196612, 0.294918, 0.294918], abs=2e-6)
    assert found.margins.tolist() == [1.0, -1.0, -1.0, 1.0]
    assert found.rewards.tolist() == [1.5, -0.5, 1.5, -0.5]


def test_kto_of_hopeless_responses_is_finite() -> None:
    logprobs = torch.tensor([-5000.0, 0.0], requires_grad=True)
    found = kto_rows(logprobs, torch.tensor([0.0, -5000.0]), torch.tensor([True, False]), 0.0, SETTINGS)
    found.loss.sum().backward()
    assert found.loss.tolist() == [2.0, 3.0]
    assert logprobs.grad is not None and logprobs.grad.tolist() == [0.0, 0.0]


def test_kto_of_an_empty_response() -> None:
    # u = 0 whatever the policy, z0 = 1: 2 sigmoid(0.5 (1 - 0)) = 2 x 0.622459; slope -2 x 0.5 x 0.622459 x 0.377541 at
    # a log-prob that is a sum over no tokens.
    empty = torch.zeros(1, requires_grad=True)
    found = kto_rows(empty, torch.zeros(1), torch.tensor([True]), 1.0, SETTINGS)
    found.loss.sum().backward()
    assert found.loss.item() == pytest.approx(1.244919, abs=2e-6)
    assert empty.grad is not None and empty.grad.item() == pytest.approx(-0.235004, abs=2e-6)
