"""One row of each group of responses: the best one, or the best and the worst as a pair, and the loss of such pairs.

```
 responses [B] of groups [G] --advantages: 1 best, -1 worst--> best [G]               likelihood (best-of-n, RAFT)
                                                          +--> best and worst [G]     a loss of pairs (online DPO)
```

A pair is one row, which no order of rows and no minibatch can take apart. Every group has its row, so that all steps
have as many; of a group without spread it is the prompt alone, and in no sum.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plumbob.configs.settings.offline_objectives import PreferenceLoss
from plumbob.data.batch import Batch
from plumbob.models.logprobs import sequence_logprobs
from plumbob.models.padding import columns_in_use
from plumbob.trainers.algorithms.preference_losses import preference_loss
from plumbob.trainers.learner.learner_protocol import LossSum
from plumbob.trainers.online.experience import Experience
from plumbob.trainers.online.objectives.movement import movement
from plumbob.trainers.online.row_masks import kept_tokens

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class PairSide(Batch):
    """One response of each pair, after its prompt: [B, T] as in `Experience`; without actions where there is no pair.

    Attributes:
        ref_logprobs: of the reference, float32.
    """

    input_ids: Tensor
    attention_mask: Tensor
    action_mask: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor


@dataclass(frozen=True)
class ResponsePairs(Batch):
    """The best response of each group against the worst: a row is a pair."""

    chosen: PairSide
    rejected: PairSide

    @property
    def is_pair(self) -> Tensor:
        """bool [B], False where a group had no spread."""
        return self.chosen.action_mask.any(dim=1)

    @property
    def stacked(self) -> PairSide:
        """Chosen rows, then rejected rows, without columns that are padding in all of them."""
        sides = zip(vars(self.chosen).values(), vars(self.rejected).values(), strict=True)
        both = PairSide(*map(torch.cat, sides))
        columns = columns_in_use(both.attention_mask)
        return both.map_arrays(lambda values: values[:, columns])


class RowOfGroups(NamedTuple):
    """A row for each group of a step, in the order of their numbers.

    Attributes:
        rows: of the step, [G].
        is_found: bool [G], False where none of the group's was wanted, and `rows` has its first.
    """

    rows: Rows
    is_found: NDArray[np.bool_]


def row_of_each(is_wanted: Tensor, groups: Tensor) -> RowOfGroups:
    """The wanted row, bool [B], of each group, int64 [B]; a group has one at most."""
    numbers, first = np.unique(groups.numpy(), return_index=True)
    wanted = np.flatnonzero(is_wanted.numpy())
    indices = np.searchsorted(numbers, groups.numpy()[wanted])
    rows, is_found = first.astype(np.int64), np.zeros(len(numbers), np.bool_)
    rows[indices], is_found[indices] = wanted, True
    return RowOfGroups(rows, is_found)


class GroupRows(NamedTuple):
    """Attributes: batch: G rows. rows: of the step's responses the one that each is named after, the best, [G]."""

    batch: Batch
    rows: Rows


def best_responses(experience: Experience, groups: Tensor) -> GroupRows:
    """Of each group the response whose advantage is above 0."""
    best = row_of_each((experience.advantages > 0).any(dim=1), groups)
    rows = experience.rows(best.rows)
    is_trained = torch.from_numpy(best.is_found)[:, None]
    attended, learnt = kept_tokens(rows.attention_mask, rows.action_mask, is_trained)
    return GroupRows(
        replace(
            rows,
            attention_mask=attended,
            action_mask=learnt,
            old_logprobs=torch.where(learnt, rows.old_logprobs, 0.0),
            loss_weights=torch.where(learnt, rows.loss_weights, 0.0),
            importance_weights=torch.where(learnt, rows.importance_weights, 0.0),
        ),
        best.rows,
    )


def response_pairs(experience: Experience, ref_logprobs: Tensor, groups: Tensor) -> GroupRows:
    """Of each group the response whose advantage is above 0 and the one whose advantage is below it.

    Args:
        ref_logprobs: of the reference, [B, T].
    """
    chosen, rejected = (
        row_of_each(wanted.any(dim=1), groups) for wanted in (experience.advantages > 0, experience.advantages < 0)
    )
    assert np.array_equal(chosen.is_found, rejected.is_found), "a group has both or neither"

    def side(found: RowOfGroups) -> PairSide:
        rows = found.rows
        attended, learnt = kept_tokens(
            experience.attention_mask[rows], experience.action_mask[rows], torch.from_numpy(found.is_found)[:, None]
        )
        old, reference = (
            torch.where(learnt, logprobs[rows].float(), 0.0) for logprobs in (experience.old_logprobs, ref_logprobs)
        )
        return PairSide(experience.input_ids[rows], attended, learnt, old, reference)

    return GroupRows(ResponsePairs(side(chosen), side(rejected)), chosen.rows)


def num_pairs(batch: ResponsePairs) -> float:
    return float(batch.is_pair.sum())


def pair_loss_sum(loss: PreferenceLoss, temperature: float, forward: Any, batch: ResponsePairs) -> LossSum:
    """The loss chosen, of whole responses' log-probs at the sampling temperature, summed over the pairs.

    Movement is measured by response: a mean over a pair's two of the mean over their tokens.
    """
    both, num_rows = batch.stacked, batch.num_rows
    logprobs = forward(both.input_ids, both.attention_mask, both.action_mask, temperature)
    mask, old, reference = (x.to(logprobs.device) for x in (both.action_mask, both.old_logprobs, both.ref_logprobs))
    whole, whole_reference = (
        sequence_logprobs(values, mask).reshape(2, num_rows).T for values in (logprobs, reference)
    )
    num_tokens = mask.sum(dim=1)
    result = preference_loss(
        loss,
        whole,
        whole_reference,
        num_tokens.reshape(2, num_rows).T,
        whole[:, 0],  # Of a likelihood of prompts, which the settings refuse.
        batch.is_pair.to(logprobs.device),
    )
    weights = mask / (2 * num_tokens.clamp(min=1)[:, None])
    statistics = dict(result.statistics)
    statistics["policy_loss"] = statistics.pop("loss")
    return LossSum(result.loss, statistics | movement(logprobs, old, mask, weights))
