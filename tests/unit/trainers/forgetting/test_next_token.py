"""The next-token loss: which tokens it is of, whatever side the padding is on."""

from typing import Any

import numpy as np
import pytest
import torch

from plumbob.data.tokenization import TokenSequence, collate
from plumbob.trainers.forgetting.next_token import next_token_loss, num_predicted_tokens, num_tokens
from tests.support.padding_sides import padded_on_the_left


def sequence(prompt: list[int], response: list[int]) -> TokenSequence:
    ids = np.array(prompt + response, np.int32)
    return TokenSequence(ids, np.arange(len(ids)) >= len(prompt))


def tenths(input_ids: torch.Tensor, attention_mask: torch.Tensor, mask: torch.Tensor, temperature: float) -> Any:
    """As log-probs: minus a tenth of each token's id, where asked."""
    return torch.where(mask, -input_ids / 10, 0.0)


def test_the_next_token_loss_leaves_out_what_nothing_predicts() -> None:
    right = collate([sequence([], [3, 4]), sequence([5], [6, 7])], pad_id=0)
    left = padded_on_the_left(right)
    # The 3 of row 0 is to be learnt, and nothing stands before it: 0.4 + 0.6 + 0.7, over 3 tokens.
    for batch in (right, left):
        assert float(next_token_loss(tenths, batch).loss) == pytest.approx(1.7)
        assert (num_predicted_tokens(batch), num_tokens(batch)) == (3.0, 5)
    assert (right.loss_mask[0].tolist(), left.loss_mask[0].tolist()) == ([True, True, False], [False, True, True])
