"""Human feedback as tokens (`EncodedFeedback`), from which a reward model's batches are made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbob.configs.runs import RewardRun
from plumbob.reward.reward_models.bert_encoding import EncodedPair
from plumbob.trainers.offline.reward_modelling.counterfactual_records import Mitigation
from plumbob.trainers.offline.reward_modelling.reward_batch import (
    CounterfactualBatch,
    FeedbackRecord,
    RewardBatch,
    collate_counterfactuals,
    collate_responses,
    encode_responses,
    target_of,
)


@dataclass(frozen=True)
class EncodedFeedback:
    """Records beside their responses' tokens.

    Attributes:
        others: those of their counterfactuals, None of a record that has none; None where none are learnt.
    """

    records: Sequence[FeedbackRecord]
    responses: Sequence[tuple[EncodedPair, ...]]
    others: Sequence[tuple[EncodedPair, ...] | None] | None = None

    def batch(self, tokenizer: Any, index: NDArray[np.int64]) -> RewardBatch:
        return collate_responses(tokenizer, [self.responses[row] for row in index], self._targets(index))

    def learnt_batch(self, tokenizer: Any, index: NDArray[np.int64]) -> RewardBatch | CounterfactualBatch:
        """What the loss is of."""
        if self.others is None:
            return self.batch(tokenizer, index)
        rows, others = ([side[row] for row in index] for side in (self.responses, self.others))
        return collate_counterfactuals(tokenizer, rows, others, self._targets(index))

    def _targets(self, index: NDArray[np.int64]) -> list[float]:
        return [target_of(self.records[row_index]) for row_index in index]


def encode_feedback(run: RewardRun, tokenizer: Any, records: Sequence[FeedbackRecord]) -> EncodedFeedback:
    """With their counterfactuals where the run learns from these."""
    max_tokens, mitigation = run.reward.max_tokens, run.reward_training.mitigation
    responses = encode_responses(tokenizer, records, max_tokens)
    if mitigation is None or not mitigation.consistency:
        return EncodedFeedback(records, responses)
    found = Mitigation.of(mitigation).counterfactuals(records)
    encoded = iter(encode_responses(tokenizer, [one for one in found if one is not None], max_tokens))
    return EncodedFeedback(records, responses, [None if one is None else next(encoded) for one in found])


def num_tokens(batch: RewardBatch | CounterfactualBatch) -> int:
    """Real ones, of all that goes through the model."""
    sides = (batch.own, batch.others) if isinstance(batch, CounterfactualBatch) else (batch,)
    return sum(int(side.attention_mask.sum()) for side in sides)
