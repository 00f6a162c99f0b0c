"""A step's rows dealt out to the ranks: as many to each, side by side, so that groups stay together where they can."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from plumbob.data.tokenization import TokenBatch
from plumbob.rollout.rollout_heads import RolloutRefs, refer
from plumbob.trainers.online.collection.collector import StepResponses
from plumbob.trainers.online.part_rewards import CombinedScores
from plumbob.trainers.online.ranks.rank_step import OwnRollouts, OwnScores
from plumbob.trainers.online.trajectories import group_numbers


@dataclass(frozen=True)
class Deal:
    """Which responses are whose: of those that are learnt from as many for each rank, and a share of those left out."""

    responses: StepResponses
    num_ranks: int

    @property
    def rows(self) -> list[slice]:
        return blocks(len(self.responses.rollouts), self.num_ranks)

    @property
    def left_out(self) -> list[slice]:
        return blocks(len(self.responses.dropped), self.num_ranks)

    def rollouts(self) -> list[RolloutRefs]:
        """What each rank fetches: its own rows, then those that it only writes down."""
        found = self.responses
        return [
            refer([*found.rollouts[rows], *(rollout for rollout, _ in found.dropped[dropped])])
            for rows, dropped in zip(self.rows, self.left_out, strict=True)
        ]

    def to_compute(self, probed: NDArray[np.int64] | None, teachers: Tensor | None) -> list[OwnRollouts]:
        """What each rank is told of its rows before it computes of them.

        Args:
            probed: by which rows the sampler is tried; None by none.
            teachers: the number of each row's, int64 [B]; None where there are none.
        """
        groups = group_numbers(self.responses.rollouts)
        return [
            OwnRollouts(
                rows.start,
                groups[rows],
                None if probed is None else probed[(rows.start <= probed) & (probed < rows.stop)] - rows.start,
                None if teachers is None else teachers[rows],
            )
            for rows in self.rows
        ]

    def to_learn(self, learnt: CombinedScores, replayed: TokenBatch | None) -> list[OwnScores]:
        """What each rank learns of its rows.

        Args:
            replayed: text beside each row of the update; None where nothing is replayed.
        """
        texts = [None] * self.num_ranks if replayed is None else _dealt_text(replayed, self.num_ranks)
        return [
            OwnScores(
                self.responses.part(rows, dropped),
                CombinedScores(
                    learnt.totals[rows],
                    {name: own[rows] for name, own in learnt.standardised.items()},
                ),
                text,
            )
            for rows, dropped, text in zip(self.rows, self.left_out, texts, strict=True)
        ]


def _dealt_text(text: TokenBatch, num_ranks: int) -> Sequence[TokenBatch]:
    return [text.rows(np.arange(rows.start, rows.stop)) for rows in blocks(text.num_rows, num_ranks)]


def blocks(num_rows: int, num_ranks: int) -> list[slice]:
    """Rows that stand side by side, as many for each rank; the last ones' are fewer where they do not divide."""
    size = -(-num_rows // num_ranks)
    return [slice(min(rank * size, num_rows), min((rank + 1) * size, num_rows)) for rank in range(num_ranks)]
