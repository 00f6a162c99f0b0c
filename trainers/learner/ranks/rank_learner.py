"""One rank of the learners with the rows that are its own (RankLearner), and what a loop asks of all (RowLearners).

```
 loop: on_ranks(function, what all are told, [a share for each])
          |
          v  on each rank
 function(rank: RankLearner, common, share) -> a result for each
                |
                +-- compute, update: forwards and optimizer steps over this rank's own rows, in step with the others
                +-- batch.gather:    numbers of single rows, exchanged among the ranks
                +-- kept:            rows that stay here until the next function wants them
```
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plumbob.data.batch import Batch
from plumbob.models.adapter import ModelRole
from plumbob.rollout.rollout_heads import RolloutRefs
from plumbob.rollout.rollout_records import Rollout
from plumbob.trainers.algorithms.whole_batch import WholeBatch
from plumbob.trainers.learner.learner import Learner, Minibatch, drawn
from plumbob.trainers.learner.learner_protocol import Learners, UpdatePlan, UpdateResult
from plumbob.trainers.learner.micro_batches import Rows, cut_own
from plumbob.trainers.learner.ranks.exchanged_rows import ExchangedRows
from plumbob.trainers.learner.ranks.row_loans import RowLoans

Common = TypeVar("Common")
Share = TypeVar("Share")
Result = TypeVar("Result")


class RankLearner(Protocol):
    """What a function that runs on each rank works with.

    Attributes:
        batch: what this rank's rows are a part of; each rank has as many.
        rollouts: those that came with the call.
        kept: whatever a function leaves for the next one on this rank.
    """

    @property
    def batch(self) -> WholeBatch: ...

    rollouts: Sequence[Rollout]
    kept: Any

    def compute(self, batch: Any, role: ModelRole | None, function: Callable[[Any, Any], Tensor]) -> NDArray[Any]:
        """`function` of each of this rank's rows, without gradients. Collective."""

    def update(self, batch: Any, plan: UpdatePlan) -> UpdateResult:
        """Train on the rows of all ranks, of which these are this rank's. Collective.

        The minibatches are those of `Learner.update`, however many ranks there are. An error names rows by their places
        in the whole batch; tokens are told of this rank's own rows, by their places here.
        """


class RowLearners(Learners, Protocol):
    """Learners whose ranks can be given rows of their own."""

    @property
    def num_ranks(self) -> int: ...

    def on_ranks(
        self,
        doing: str,
        function: Callable[[RankLearner, Common, Share], Result],
        common: Common,
        shares: Sequence[Share],
        rollouts: Sequence[RolloutRefs] = (),
    ) -> list[Result]:
        """Call a module's function on each rank; the results in the order of the ranks.

        Args:
            doing: for people who watch.
            common: given to all.
            shares: one for each rank.
            rollouts: which each rank is given; each fetches its own. Nothing gives none.
        """


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
