"""Which micro-batches a stage's rows will be cut into, by lengths made by hand."""

import numpy as np

from plumbob.configs.settings.workers import LearnerSettings
from plumbob.data.epoch_order import EpochBatches
from plumbob.driver.input_sizes.learner_rows import LearnerRows, MicroBatchShape


def rows(*lengths: int, batch_size: int, num_epochs: int = 1) -> LearnerRows:
    batches = EpochBatches(len(lengths), batch_size, num_epochs, seed=0)
    return LearnerRows(max(lengths), np.array(lengths, dtype=np.int64), batches)


def test_rows_of_one_length_fill_micro_batches() -> None:
    found = rows(*[128] * 8, batch_size=8)
    (step,) = found.cuts(LearnerSettings(micro_batch_size=4))
    assert step == [[MicroBatchShape(4, 128)] * 2]
    (step,) = found.cuts(LearnerSettings(micro_batch_size=2, num_workers=2))
    assert step == [[MicroBatchShape(2, 128)] * 2] * 2


def test_the_widest_has_no_more_tokens_than_the_longest_rows_would() -> None:
    # One row of 256 among seven of 64: two of the longest are 512 tokens, and so are eight of 64.
    found = rows(256, *[64] * 7, batch_size=8)
    widest = found.widest(LearnerSettings(micro_batch_size=2))
    assert widest == MicroBatchShape(7, 64)
    assert found.widest(LearnerSettings(micro_batch_size=1)) == MicroBatchShape(1, 256)


def test_the_steps_with_the_longest_rows_are_among_those_looked_at() -> None:
    """Of a thousand steps 48 are looked at, and those of the sixteen longest rows."""
    lengths = np.full(1000, 32)
    lengths[[17, 555]] = 512
    found = LearnerRows(512, lengths, EpochBatches(1000, 1, 1, seed=3))
    assert found.widest(LearnerSettings(micro_batch_size=4)) == MicroBatchShape(1, 512)
    assert len(list(found.cuts(LearnerSettings()))) <= 48 + 16


def test_of_rows_that_are_yet_to_be_sampled_the_settings_are_the_bound() -> None:
    found = LearnerRows(100)
    assert found.widest(LearnerSettings(micro_batch_size=8)) == MicroBatchShape(8, 100)
    assert list(found.cuts(LearnerSettings())) == []
