"""Batches of an epoch's order, each found by its step alone."""

from collections import Counter

import numpy as np
import pytest

from plumbob.data.epoch_order import EpochBatches


@pytest.mark.parametrize(("num_records", "batch_size", "num_epochs"), [(7, 3, 2), (8, 4, 3), (3, 8, 4), (1, 1, 1)])
def test_every_record_is_used_once_an_epoch(num_records: int, batch_size: int, num_epochs: int) -> None:
    batches = EpochBatches(num_records, batch_size, num_epochs, seed=5)
    every = list(batches)
    assert len(every) == batches.num_batches == int(np.ceil(num_records * num_epochs / batch_size))
    assert {len(batch) for batch in every} == {batch_size}
    row = np.concatenate(every)
    for epoch in range(num_epochs):
        assert sorted(row[epoch * num_records : (epoch + 1) * num_records]) == list(range(num_records))
    extra = Counter(row[num_epochs * num_records :].tolist())
    assert max(extra.values(), default=0) <= -(-batch_size // num_records)


def test_a_batch_is_found_by_its_step_and_epochs_and_seeds_differ() -> None:
    batches = EpochBatches(50, 50, 3, seed=1)
    later = EpochBatches(50, 50, 3, seed=1).batch_at(2)
    assert later.tolist() == list(batches)[2].tolist()
    assert batches.batch_at(0).tolist() != batches.batch_at(1).tolist()
    assert batches.batch_at(0).tolist() != EpochBatches(50, 50, 3, seed=2).batch_at(0).tolist()
    with pytest.raises(IndexError, match="step 3 is outside the 3 steps"):
        batches.batch_at(3)
