"""Statistics of a batch that lies on several ranks are those of the whole batch."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from torch import Tensor

from plumbob.configs.settings.algorithms import (
    BestOfN,
    DrGrpo,
    Estimator,
    Gae,
    Grpo,
    OnlineDpo,
    ReinforcePlusPlus,
    ReinforcePlusPlusBaseline,
    Rloo,
)
from plumbob.trainers.algorithms.advantages import estimate
from plumbob.trainers.algorithms.whole_batch import WholeBatch, exact_mean, masked_mean, masked_variance

PATIENCE_S = 60.0
ESTIMATORS = [Gae(gamma=0.9), ReinforcePlusPlus(gamma=0.9), ReinforcePlusPlusBaseline(), Rloo(), Grpo(), DrGrpo()]
ESTIMATORS += [BestOfN(), OnlineDpo()]


class ThreadBatch:
    """One of several threads' rows of a batch, in blocks of as many."""

    def __init__(self, index: int, given: list[Tensor | None], barrier: Barrier) -> None:
        self._index, self._given, self._barrier = index, given, barrier

    def gather(self, own: Tensor) -> Tensor:
        self._given[self._index] = own
        self._barrier.wait(PATIENCE_S)
        whole = torch.cat([part for part in self._given if part is not None])
        self._barrier.wait(PATIENCE_S)
        return whole

    def own(self, whole: Tensor) -> Tensor:
        return whole.chunk(len(self._given))[self._index]


def on_ranks(num_ranks: int, function: Callable[[WholeBatch, slice], Tensor], num_rows: int) -> list[Tensor]:
    """The function of each rank's rows, by all ranks at once."""
    given: list[Tensor | None] = [None] * num_ranks
    barrier, size = Barrier(num_ranks), num_rows // num_ranks
    with ThreadPoolExecutor(num_ranks) as ranks:
        calls = [
            ranks.submit(function, ThreadBatch(index, given, barrier), slice(index * size, (index + 1) * size))
            for index in range(num_ranks)
        ]
        return [call.result() for call in calls]


def test_mean_and_variance_by_hand() -> None:
    # Of 1, 2, 3 and 6 the mean is 3, and the variance (4 + 1 + 0 + 9) / 4; the last row has no cell.
    x = torch.tensor([[1.0, 2.0], [float("nan"), 3.0], [6.0, 9.0], [9.0, 9.0]])
    mask = torch.tensor([[True, True], [False, True], [True, False], [False, False]])
    for num_ranks in (1, 2, 4):
        for found in on_ranks(num_ranks, lambda batch, rows: masked_mean(x[rows], mask[rows], batch), 4):
            assert found.item() == 3.0
        for found in on_ranks(num_ranks, lambda batch, rows: masked_variance(x[rows], mask[rows], batch), 4):
            assert found.item() == 3.5
        for mean in on_ranks(num_ranks, lambda batch, rows: torch.tensor(exact_mean(x[rows], mask[rows], batch)), 4):
            assert mean.item() == 3.0
    assert exact_mean(x, torch.zeros_like(mask)) == 0.0


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: estimator.kind)
def test_each_rank_has_its_rows_of_the_estimate(estimator: Estimator) -> None:
    """Groups of three, which no block of two or four rows keeps together; a row without an action; a group of ties."""
    generator = torch.Generator().manual_seed(2)
    groups = torch.arange(12) // 3
    mask = torch.rand(12, 5, generator=generator) < 0.8
    mask[4] = False
    rewards, values = torch.randn(12, 5, generator=generator), torch.randn(12, 5, generator=generator)
    rewards[6:9], mask[6:9] = 1.0, True
    critic = values if isinstance(estimator, Gae) else None
    expected = estimate(estimator, rewards, critic, mask, groups)

    def own(batch: WholeBatch, rows: slice) -> Tensor:
        values = None if critic is None else critic[rows]
        return estimate(estimator, rewards[rows], values, mask[rows], groups[rows], batch).advantages

    for num_ranks in (3, 6):
        found = torch.cat(on_ranks(num_ranks, own, 12))
        torch.testing.assert_close(found, expected.advantages, rtol=1e-6, atol=1e-6)
