"""Importance weights by hand: bounds, masks, and what counts as cut."""

import math

import pytest
import torch

from plumbob.configs.settings.algorithms import MaskedImportance, NoImportance, TruncatedImportance
from plumbob.trainers.algorithms.importance_sampling import importance_weights

NAN = float("nan")
# pi_learner / pi_sampler: e^0.5 = 1.65, e^-1 = 0.37, e^3 = 20, e^400 (which would overflow float32), and no action.
LEARNER = torch.tensor([[-1.0, -2.0, -1.0, 0.0, NAN]], requires_grad=True)
SAMPLER = torch.tensor([[-1.5, -1.0, -4.0, -400.0, NAN]])
MASK = torch.tensor([[True, True, True, True, False]])


def test_truncated_weights_are_held_at_the_cap():
    weights, is_cut = importance_weights(TruncatedImportance(cap=2.0), LEARNER, SAMPLER, MASK)
    assert weights[0].tolist() == pytest.approx([math.exp(0.5), math.exp(-1), 2.0, 2.0, 0.0])
    assert is_cut[0].tolist() == [False, False, True, True, False]
    assert not weights.requires_grad


def test_masked_weights_are_zero_on_either_side():
    weights, is_cut = importance_weights(MaskedImportance(low=0.5, high=2.0), LEARNER, SAMPLER, MASK)
    assert weights[0].tolist() == pytest.approx([math.exp(0.5), 0.0, 0.0, 0.0, 0.0])
    assert is_cut[0].tolist() == [False, True, True, True, False]
    assert not weights.requires_grad


def test_without_correction_every_action_weighs_one():
    weights, is_cut = importance_weights(NoImportance(), LEARNER, SAMPLER, MASK)
    assert weights[0].tolist() == [1.0, 1.0, 1.0, 1.0, 0.0]
    assert not is_cut.any()


def test_a_ratio_on_the_bound_is_within_it():
    same = torch.zeros(1, 1)
    for settings in (TruncatedImportance(cap=1.0), MaskedImportance(low=0.5, high=1.5)):
        weights, is_cut = importance_weights(settings, same, same, torch.ones(1, 1, dtype=torch.bool))
        assert (weights.item(), is_cut.item()) == (1.0, False)
