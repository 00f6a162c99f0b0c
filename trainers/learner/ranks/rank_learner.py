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
from typing import Any, Protocol, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

from plumbob.data.batch import Batch
from plumbob.models.adapter import ModelRole
from plumbob.rollout.rollout_heads import RolloutRefs
from plumbob.rollout.rollout_records import Rollout
from plumbob.trainers.algorithms.whole_batch import WholeBatch
from plumbob.trainers.learner.engine import Rank
from plumbob.trainers.learner.learner import Learner
from plumbob.trainers.learner.learner_protocol import Learners, UpdatePlan, UpdateResult

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
        """Train on the rows of all ranks, of which these are this rank's. Collective."""


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
        self.batch = ExchangedRows(learner.rank, learner.engine.device)
        self.rollouts: Sequence[Rollout] = ()
        self.kept: Any = None

    def compute(self, batch: Any, role: ModelRole | None, function: Callable[[Any, Any], Tensor]) -> NDArray[Any]:
        return self._learner.compute_own(batch, role, function, self.batch)

    def update(self, batch: Batch, plan: UpdatePlan) -> UpdateResult:
        return self._learner.update_own(batch, plan, self.batch)


class ExchangedRows:
    """Satisfies `WholeBatch` by torch.distributed: a batch in blocks of as many rows on each rank."""

    def __init__(self, rank: Rank, device: torch.device) -> None:
        self._rank, self._device = rank, device

    def gather(self, own: Tensor) -> Tensor:
        if self._rank.world_size == 1:
            return own
        sent = own.to(self._device, torch.uint8 if own.dtype == torch.bool else own.dtype).contiguous()
        parts = [torch.empty_like(sent) for _ in range(self._rank.world_size)]
        distributed.all_gather(parts, sent)
        return torch.cat(parts).to(own.device, own.dtype)

    def own(self, whole: Tensor) -> Tensor:
        size = len(whole) // self._rank.world_size
        return whole[self._rank.index * size : (self._rank.index + 1) * size]
