"""A rank's learner with rows of its own (OwnRows): forwards over them, and an update that all ranks make together."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plumbob.data.batch import Batch
from plumbob.models.adapter import ModelRole
from plumbob.rollout.rollout_records import Rollout
from plumbob.trainers.algorithms.whole_batch import WholeBatch
from plumbob.trainers.learner.learner import Learner, Minibatch, drawn
from plumbob.trainers.learner.learner_protocol import UpdatePlan, UpdateResult
from plumbob.trainers.learner.micro_batches import Rows, cut_own
from plumbob.trainers.learner.ranks.exchanged_rows import ExchangedRows
from plumbob.trainers.learner.ranks.row_loans import RowLoans


class OwnRows:
    """Satisfies `RankLearner` by a rank's `Learner`."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._ranks = ExchangedRows(learner.rank, learner.engine.device)
        self.batch: WholeBatch = self._ranks
        self.rollouts: Sequence[Rollout] = ()
        self.kept: Any = None

    def compute(self, batch: Any, role: ModelRole | None, function: Callable[[Any, Any], Tensor]) -> NDArray[Any]:
        mine = np.arange(batch.num_rows)
        return self._learner.evaluated(batch, mine, self._micro_batches(batch), role, function)

    def update(self, batch: Batch, plan: UpdatePlan) -> UpdateResult:
        rank, num_own = self._learner.rank, batch.num_rows
        num_rows = num_own * rank.world_size
        self._learner.check_cut(num_rows, plan)
        loans = RowLoans.of(rank, num_own, drawn(num_rows, plan))
        held = loans.borrow(batch, self._ranks)

        def dealt(batch: Batch, index: Rows) -> Minibatch:
            minibatch, terms = batch.rows(np.searchsorted(held.ids, index)), self._learner.loss_terms
            sums = self._ranks.gather(torch.tensor([[term.count(minibatch) for term in terms]], dtype=torch.float64))
            counts = sums.sum(dim=0).clamp(min=1.0).tolist()
            return Minibatch(minibatch, index, self._micro_batches(minibatch), counts)

        found = self._learner.train(held.batch, plan, loans.own_shares, dealt)
        return replace(found, tokens=loans.hand_back(found.tokens, self._ranks))

    def _micro_batches(self, batch: Batch) -> list[Rows]:
        """As `Learner.micro_batches`, of a batch whose rows are all this rank's."""

        def largest(own: int) -> int:
            return int(self._ranks.gather(torch.tensor([own])).max())

        learner = self._learner
        size, device = learner.settings.micro_batch_size, learner.engine.device.type
        return cut_own(batch.lengths, learner.prompts_of(batch), size, device, largest)
