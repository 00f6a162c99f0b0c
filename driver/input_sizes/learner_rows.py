"""The rows that a stage's learners compute (LearnerRows), and the micro-batches they are cut into, told beforehand."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from plumbob.configs.settings.workers import LearnerRankSettings
from plumbob.data.epoch_order import EpochBatches
from plumbob.trainers.learner.micro_batches import Rows, cut_evenly

NUM_STEPS, NUM_LONGEST = 48, 16
"""Optimizer steps that are looked at, evenly spread; and the longest rows whose steps are looked at besides."""


class MicroBatchShape(NamedTuple):
    """Rows, and the tokens that each of them is padded to."""

    num_rows: int
    num_tokens: int


@dataclass(frozen=True)
class LearnerRows:
    """What is known of them before a stage runs.

    Attributes:
        longest: tokens of the longest sequence.
        lengths: int64 [N]: of each training row as its batches have it; None of rows that are yet to be sampled.
        batches: the rows of each optimizer step; None where there are no lengths.
    """

    longest: int
    lengths: NDArray[np.int64] | None = None
    batches: EpochBatches | None = None

    def widest(self, learner: LearnerRankSettings) -> MicroBatchShape:
        """The micro-batch with the most tokens, of the steps that are looked at; at most what the settings allow."""
        parts = [part for step in self.cuts(learner) for rank in step for part in rank]
        allowed = MicroBatchShape(learner.micro_batch_size, self.longest)
        return max(parts, key=lambda shape: shape.num_rows * shape.num_tokens, default=allowed)

    def cuts(self, learner: LearnerRankSettings) -> Iterator[list[list[MicroBatchShape]]]:
        """Of each step that is looked at, each rank's micro-batches; nothing where no lengths are known.

        Rows that begin with the same prompt may be computed in fewer tokens than are told here.
        """
        if self.lengths is None or self.batches is None:
            return
        device = "cuda" if learner.num_gpus else "cpu"
        for step in self._looked_at(self.lengths, self.batches):
            lengths = self.lengths[self.batches.batch_at(step)]
            rows_of_ranks = [np.arange(rank, len(lengths), learner.num_workers) for rank in range(learner.num_workers)]
            cut = cut_evenly(rows_of_ranks, lengths, None, learner.micro_batch_size, device)
            yield [
                [_shape(lengths[share[part]]) for part in parts]
                for share, parts in zip(rows_of_ranks, cut, strict=True)
            ]

    def _looked_at(self, lengths: Rows, batches: EpochBatches) -> list[int]:
        spread = np.linspace(0, batches.num_batches - 1, NUM_STEPS).astype(np.int64).tolist()
        longest = np.argsort(-lengths, kind="stable")[:NUM_LONGEST]
        return sorted({*spread, *batches.first_steps(longest)})


def _shape(lengths: Rows) -> MicroBatchShape:
    return MicroBatchShape(len(lengths), int(lengths.max()))
