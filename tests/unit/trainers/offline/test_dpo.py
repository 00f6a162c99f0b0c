"""Batches of preference pairs: what a step's gradient may not depend on."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbob.configs.settings.offline_objectives import PreferenceLoss
from plumbob.trainers.offline.dpo import DpoBatch, dpo_loss_terms, step_batch
from tests.support.ragged_batches import ragged_pairs
from tests.unit.trainers.algorithms.test_preference_losses import EVERY


def gradient_of(loss: PreferenceLoss, batches: list[DpoBatch]) -> tuple[float, torch.Tensor]:
    """Summed over the batches, of a model that gives each token a log-prob by its id and its column."""
    generator = torch.Generator().manual_seed(1)
    table = -torch.rand(40, generator=generator, dtype=torch.float64) * 3 - 0.01
    table.requires_grad_()

    def forward(ids: Any, attended: Any, asked: Any, temperature: float) -> torch.Tensor:
        assert temperature == 1.0
        return torch.where(asked, table[ids] * (1 + 0.1 * torch.arange(ids.shape[1])), 0.0)

    (only,) = dpo_loss_terms(loss)
    total = torch.stack([only.loss_sum(forward, batch).loss for batch in batches]).sum()
    total.backward()
    assert table.grad is not None
    return total.item(), table.grad


LENGTHS = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)), min_size=2, max_size=7)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(EVERY), LENGTHS, st.data())
def test_order_and_cut_of_the_rows_change_nothing(
    loss: PreferenceLoss, lengths: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    pairs = ragged_pairs(lengths)
    batch = step_batch(pairs, np.random.default_rng(0).normal(-4, 1, (len(lengths), 2)).astype(np.float32))
    order = np.array(data.draw(st.permutations(range(len(lengths)))))
    cut = data.draw(st.integers(1, len(lengths) - 1))
    value, gradient = gradient_of(loss, [batch])
    found, other = gradient_of(loss, [batch.rows(order[:cut]), batch.rows(order[cut:])])
    assert found == pytest.approx(value, rel=1e-9)
    torch.testing.assert_close(other, gradient, rtol=1e-9, atol=1e-9)
