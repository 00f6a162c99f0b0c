"""Batches of an epoch's order, each found by its step alone."""

from collections import Counter

import numpy as np
import pytest

from plumbob.data.epoch_order import EpochBatches, Mixture, mixed_order


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


# Records 0 to 3 are of the first file, 4 and 5 of the second, 6 to 11 of the third: 12 slots an epoch. By weight, 1, 2
# and 3 of 6, these are 2, 4 and 6 of them.
MIXTURE = Mixture((4, 2, 6), (1.0, 2.0, 3.0))


def test_each_file_has_its_share_of_every_epoch_whatever_its_size() -> None:
    assert MIXTURE.num_slots == (2, 4, 6)
    epochs = [mixed_order(MIXTURE, epoch, seed=5).tolist() for epoch in range(4)]
    for order in epochs:
        assert len(order) == 12
        # Each of the second file's two twice, all of the third once.
        assert Counter(record for record in order if record >= 4) == {4: 2, 5: 2, **dict.fromkeys(range(6, 12), 1)}
    firsts = [[record for record in order if record < 4] for order in epochs]
    assert [len(records) for records in firsts] == [2, 2, 2, 2]
    # Over two epochs of the run the first file's epoch is whole, and then again.
    assert sorted(firsts[0] + firsts[1]) == sorted(firsts[2] + firsts[3]) == [0, 1, 2, 3]
    assert len({tuple(order) for order in epochs}) == 4
    assert MIXTURE.cut("aaaabbcccccc") == ["aaaa", "bb", "cccccc"]


@pytest.mark.parametrize(
    ("sizes", "weights", "slots"),
    [
        ((5, 5), (1.0, 2.0), (3, 7)),  # 3.33 and 6.67: the slot that is left goes to the larger remainder.
        ((3, 3, 4), (1.0, 1.0, 1.0), (4, 3, 3)),  # 3.33 each: to the first.
        ((10, 90), (0.5, 0.5), (50, 50)),
        ((7,), (0.3,), (7,)),
        ((50, 50), (1.0, 1000.0), (0, 100)),
        ((1, 2), (1e6, 1e-6), (3, 0)),
    ],
)
def test_shares_that_are_no_whole_numbers(
    sizes: tuple[int, ...], weights: tuple[float, ...], slots: tuple[int, ...]
) -> None:
    assert Mixture(sizes, weights).num_slots == slots


def test_batches_of_a_mixture_are_found_by_their_step() -> None:
    def batches() -> EpochBatches:
        return EpochBatches(12, 5, 3, seed=2, mixture=MIXTURE)

    assert batches().num_batches == 8  # 36 slots in batches of 5.
    later = batches().batch_at(6).tolist()
    row = np.concatenate(list(batches()))
    assert row[30:35].tolist() == later
    assert row[:24].tolist() == [r for epoch in (0, 1) for r in mixed_order(MIXTURE, epoch, seed=2).tolist()]
    assert row.tolist() != np.concatenate(list(EpochBatches(12, 5, 3, seed=3, mixture=MIXTURE))).tolist()


def test_files_of_one_size_are_not_used_in_one_order() -> None:
    twins = mixed_order(Mixture((40, 40), (1.0, 1.0)), 0, seed=0)
    first, second = twins[twins < 40], twins[twins >= 40] - 40
    assert sorted(first) == sorted(second) and first.tolist() != second.tolist()
