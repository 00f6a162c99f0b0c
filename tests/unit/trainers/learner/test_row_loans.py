"""Minibatches of rows that lie on several ranks are those of one rank, and each rank computes as many rows of them."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from plumbob.data.batch import Batch
from plumbob.data.tokenization import TokenBatch
from plumbob.trainers.forgetting.replay import WithReplay
from plumbob.trainers.learner.engine import Rank
from plumbob.trainers.learner.learner import drawn
from plumbob.trainers.learner.learner_protocol import UpdatePlan
from plumbob.trainers.learner.ranks.exchanged_rows import ExchangedRows
from plumbob.trainers.learner.ranks.row_loans import HeldRows, RowLoans, even_shares, joined
from plumbob.trainers.learner.token_values import TokenRows
from tests.support.learner_ranks import Ranks, this_rank

PATIENCE_S = 60.0


@dataclass(frozen=True)
class NamedRows(Batch):
    """A row's name, and tokens of which a rank's rows are as wide as its longest."""

    attention_mask: Tensor
    names: Tensor
    scale: float


def named(first: int, lengths: list[int]) -> NamedRows:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return NamedRows(mask, torch.arange(first, first + len(lengths)), 0.5)


def test_each_takes_its_own_first_and_who_lacks_some_borrows() -> None:
    # Blocks of four: rank 0 has 0 to 3. Of six rows it has four, one more than its share; rank 1 takes the one.
    assert even_shares(np.array([7, 2, 0, 3, 5, 1]), 4, 2).tolist() == [[2, 0, 3], [7, 5, 1]]
    # Three ranks' blocks of two; all of the minibatch is of the last two, and the first borrows from both.
    assert even_shares(np.array([5, 3, 2]), 2, 3).tolist() == [[2], [3], [5]]
    assert even_shares(np.array([3, 0, 2, 1]), 4, 1).tolist() == [[3, 0, 2, 1]]


@pytest.mark.parametrize("num_ranks", [1, 2, 4, 8])
def test_all_rows_of_each_minibatch_are_computed_once_in_shares_of_one_size(num_ranks: int) -> None:
    epochs = drawn(64, UpdatePlan(16, 3, 1.0, 7))
    loans = RowLoans.of(Rank(0, num_ranks, ""), 64 // num_ranks, epochs)
    assert len(loans.shares) == 3
    for epoch, shares in zip(epochs, loans.shares, strict=True):
        assert shares.shape == (num_ranks, 4, 16 // num_ranks)
        for step, minibatch in enumerate(epoch):
            assert sorted(shares[:, step].ravel().tolist()) == sorted(minibatch.tolist())
    if num_ranks == 1:
        assert all(np.array_equal(own, epoch) for own, epoch in zip(loans.own_shares, epochs, strict=True))
        assert not len(loans.borrowed(0))


def test_rows_of_several_batches_stand_below_one_another_as_wide_as_the_widest() -> None:
    text = TokenBatch(np.ones((2, 3), np.int64), np.ones((2, 3), np.bool_), np.zeros((2, 3), np.bool_))
    both = joined([WithReplay(named(0, [1, 2]), text), WithReplay(named(2, [4, 1]), text)])
    assert both.batch.names.tolist() == [0, 1, 2, 3] and both.batch.scale == 0.5
    assert both.batch.attention_mask.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]
    assert isinstance(both.replayed.input_ids, np.ndarray) and both.replayed.input_ids.shape == (4, 3)


class ThreadExchange:
    """One of several threads' rows of a batch."""

    def __init__(self, index: int, given: list[Any], barrier: Barrier) -> None:
        self._index, self._given, self._barrier = index, given, barrier

    def gather(self, own: Tensor) -> Tensor:
        return torch.cat(self._told(own))

    def own(self, whole: Tensor) -> Tensor:
        return whole.chunk(len(self._given))[self._index]

    def exchange(self, parcels: Mapping[int, Any]) -> dict[int, Any]:
        told = self._told(parcels)
        return {sender: sent[self._index] for sender, sent in enumerate(told) if self._index in sent}

    def _told(self, own: Any) -> list[Any]:
        self._given[self._index] = own
        self._barrier.wait(PATIENCE_S)
        told = list(self._given)
        self._barrier.wait(PATIENCE_S)
        return told


def test_borrowed_rows_are_computed_where_they_are_lent_and_told_where_they_are() -> None:
    """Two ranks' blocks of four; in both epochs' first minibatches rank 0 has three rows, and rank 1 one."""
    epochs = [np.array([[0, 5, 1, 2], [3, 4, 6, 7]]), np.array([[3, 2, 0, 7], [1, 4, 5, 6]])]
    barrier, given = Barrier(2), [None, None]
    lengths = [[1, 2, 3, 4], [5, 6, 7, 8]]

    def on_rank(index: int) -> tuple[HeldRows[NamedRows], dict[str, TokenRows]]:
        loans, ranks = RowLoans.of(Rank(index, 2, ""), 4, epochs), ThreadExchange(index, given, barrier)
        held = loans.borrow(named(4 * index, lengths[index]), ranks)
        computed = np.unique(loans.own_shares[1])
        rows = held.batch.rows(np.searchsorted(held.ids, computed))
        measured = TokenRows(computed, rows.lengths, np.repeat(computed, rows.lengths).astype(np.float32))
        return held, loans.hand_back({"numbers": measured}, ranks)

    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(on_rank, range(2)))
    # Of 0, 1, 2 the first two are computed where they are, and 2 is lent; of 3, 2, 0 that is 0. Rank 0 lacks one of the
    # three that are left: it borrows the last of 4, 6, 7, and of 4, 5, 6.
    assert [held.ids.tolist() for held, _ in found] == [[0, 1, 2, 3, 6, 7], [0, 2, 4, 5, 6, 7]]
    for held, _ in found:
        assert held.batch.names.tolist() == held.ids.tolist()
        assert held.batch.lengths.tolist() == [row + 1 for row in held.ids.tolist()]
    for index, (_, told) in enumerate(found):
        of_rows = told["numbers"].of_each(4)
        assert [values.tolist() for values in of_rows] == [
            [float(row)] * (row + 1) for row in range(4 * index, 4 * index + 4)
        ]


def sent_on(num_ranks: int) -> dict[int, Any]:
    rank = this_rank()
    ranks = ExchangedRows(rank, torch.device("cpu"))
    to_next = {(rank.index + 1) % num_ranks: named(rank.index, [rank.index + 1])} if rank.index else {}
    found = ranks.exchange(to_next)
    assert ranks.exchange({}) == {}
    return {sender: (batch.names.tolist(), batch.lengths.tolist()) for sender, batch in found.items()}


def test_ranks_send_one_another_rows(two_ranks: Ranks) -> None:
    """The second to the first; nobody anything, which none of them waits for."""
    assert two_ranks.run(sent_on, 2) == [{1: ([1], [2])}, {}]
