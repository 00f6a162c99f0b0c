"""What a stage's loop knows of its learners: loss terms, plans of an update, and all ranks as one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from plumbob.data.batch import Batch
from plumbob.models.adapter import ModelRole, PolicyWeights
from plumbob.trainers.learner.checkpoint import Files
from plumbob.trainers.learner.token_values import TokenMeasures, TokenRows, join_ranks

B = TypeVar("B", bound=Batch)


class LossSum(NamedTuple):
    """A loss and its statistics, as sums over the rows given: the learner divides by the count of the whole batch.

    Attributes:
        tokens: what was measured of single tokens; None is nothing.
    """

    loss: Tensor
    statistics: Mapping[str, Tensor]
    tokens: TokenMeasures | None = None


@dataclass(frozen=True)
class LossTerm(Generic[B]):
    """A term of the objective: one forward and its own backward.

    Attributes:
        role: who acts; None for a model that has no roles.
        loss_sum: (forward of the model, rows) -> sums over those rows.
        count: whole batch -> what the sums are divided by, such as its response tokens or its pairs.
    """

    role: ModelRole | None
    loss_sum: Callable[[Any, B], LossSum]
    count: Callable[[B], float]


@dataclass(frozen=True)
class UpdatePlan:
    """How one call of `update` cuts its batch.

    Attributes:
        minibatch_size: rows of one optimizer step, over all ranks; divides the batch and is divided by the ranks.
        num_epochs: how often each row of the batch is trained on, in each epoch in another order.
        learning_rate_scale: the schedule's factor at this step.
        seed: of the orders and of dropout; the same on every rank.
        num_steps: optimizer steps of the whole stage, by which an adapter drops ranks; None of a stage online.
    """

    minibatch_size: int
    num_epochs: int
    learning_rate_scale: float
    seed: int
    num_steps: int | None = None


@dataclass(frozen=True)
class UpdateResult:
    """What one rank saw of an update.

    Attributes:
        partial_means: name -> this rank's part of the mean over the batch: summed over ranks it is the mean.
        gradient_norms: group -> norm before clipping, averaged over optimizer steps; the same on every rank.
        tokens: name -> what was measured of the tokens of this rank's rows.
    """

    partial_means: Mapping[str, float]
    gradient_norms: Mapping[str, float]
    tokens: Mapping[str, TokenRows] = field(default_factory=dict)


class MergedUpdate(NamedTuple):
    """What all ranks saw of an update.

    Attributes:
        metrics: means over the batch, and gradient norms.
        tokens: name -> what was measured of single tokens, of every row that was.
    """

    metrics: dict[str, float]
    tokens: Mapping[str, TokenRows]


def update_seed(run_seed: int, step: int) -> int:
    """`UpdatePlan.seed` of the update at 0-based `step` of a run: no two runs' seeds share one at any of 2^32 steps."""
    return (run_seed << 32) + step


def add_partial_means(partial_means: dict[str, float], sums: LossSum, count: float) -> None:
    for name, value in sums.statistics.items():
        partial_means[name] = partial_means.get(name, 0.0) + float(value) / count


def join_rows(parts: Sequence[NDArray[np.float32]], num_rows: int) -> NDArray[np.float32]:
    """Put the ranks' rows back in the batch's order: the inverse of `Learner.rows_of_rank`."""
    stacked = np.stack(parts, axis=1)
    return stacked.reshape(-1, *stacked.shape[2:])[:num_rows]


class Learners(Protocol):
    """All ranks as one: what a stage's loop works with."""

    def update(self, batch: Any, plan: UpdatePlan) -> MergedUpdate:
        """Train on a batch."""

    def evaluate(self, batch: Any) -> dict[str, float]:
        """Means of the objective's statistics over a batch, without training."""

    def compute(
        self, batch: Any, role: ModelRole | None, function: Callable[[Any, Any], Tensor]
    ) -> NDArray[np.float32]:
        """`function` of every row, in the batch's order. The function is one of a module's own."""

    def policy_weights(self, version: int) -> PolicyWeights:
        """What makes the policy as it is now of the model that samplers hold, named as that version."""

    def save(self, folder: Path) -> Files:
        """Write what `load` needs into an existing folder. Returns what is on the disk by then."""

    def load(self, folder: Path) -> None: ...

    def export(self, folder: Path) -> None:
        """Write the result, whole or not at all: an adapter folder or a full model, with what loads it."""


def merge_updates(results: Sequence[UpdateResult]) -> MergedUpdate:
    """All that the ranks saw."""
    return MergedUpdate(merge_results(results), join_ranks(result.tokens for result in results))


def merge_results(results: Sequence[UpdateResult]) -> dict[str, float]:
    """The ranks' parts summed to means, beside the gradient norms, which are the same on every rank."""
    return summed([result.partial_means for result in results]) | dict(results[0].gradient_norms)


def summed(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The ranks' parts of each mean, added up."""
    sums: dict[str, float] = {}
    for part in parts:
        for name, partial_mean in part.items():
            sums[name] = sums.get(name, 0.0) + partial_mean
    return sums
