"""What a loop asks of one rank of the learners with rows of its own (RankLearner), and of all ranks (RowLearners).

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

from numpy.typing import NDArray
from torch import Tensor

from plumbob.models.adapter import ModelRole
from plumbob.rollout.rollout_heads import RolloutRefs
from plumbob.rollout.rollout_records import Rollout
from plumbob.trainers.algorithms.whole_batch import WholeBatch
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
        """Train on the rows of all ranks, of which these are this rank's. Collective.

        The minibatches are those of `Learner.update`, however many ranks there are. An error names rows by their places
        in the whole batch; tokens are told of this rank's own rows, by their indices here.
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
