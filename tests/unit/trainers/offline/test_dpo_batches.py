"""What the objectives of pairs are given: chosen and rejected in one padded batch."""

from typing import Any

import numpy as np
import pytest
import torch

from plumbob.configs.settings.offline_objectives import DpoLoss, OrpoLoss
from plumbob.data.tokenization import PairBatch, TokenSequence, collate
from plumbob.trainers.offline.dpo import dpo_loss_terms, pair_logprobs, stack, step_batch
from tests.support.padding_sides import pairs_padded_on_the_left


def sequence(prompt: list[int], response: list[int]) -> TokenSequence:
    ids = np.array(prompt + response, np.int32)
    return TokenSequence(ids, np.arange(len(ids)) >= len(prompt))


def pairs() -> PairBatch:
    chosen = collate([sequence([5], [6, 7, 2]), sequence([8, 9], [2])], pad_id=0)
    return PairBatch(chosen, collate([sequence([5], [2]), sequence([8, 9], [2])], pad_id=0))


def tenths(input_ids: torch.Tensor, attention_mask: torch.Tensor, mask: torch.Tensor, temperature: float) -> Any:
    """As log-probs: minus a tenth of each token's id, where asked."""
    assert temperature == 1.0
    return torch.where(mask, -input_ids / 10, 0.0)


def test_chosen_and_rejected_stand_in_one_batch() -> None:
    found = stack(pairs())
    assert found.input_ids.tolist() == [[5, 6, 7, 2], [8, 9, 2, 0], [5, 2, 0, 0], [8, 9, 2, 0]]
    assert found.attention_mask.sum(axis=1).tolist() == [4, 3, 2, 3]
    assert found.loss_mask.astype(int).tolist() == [[0, 1, 1, 1], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 1, 0]]


def test_the_log_probs_of_a_pair_are_summed_over_its_responses() -> None:
    # Responses 6, 7, 2 -> -1.5 against 2 -> -0.2; and 2 against 2.
    found = pair_logprobs(tenths, pairs())
    torch.testing.assert_close(found, torch.tensor([[-1.5, -0.2], [-0.2, -0.2]]))


def test_dpo_by_hand() -> None:
    # beta 2, references -1.0 and -0.2 for pair 0: margin 2 ((-1.5 + 1.0) - (-0.2 + 0.2)) = -1; pair 1: 0.
    # Loss ln(1 + e) + ln 2 = 1.313262 + 0.693147; one wrong, one tie: 0.5 right.
    batch = step_batch(pairs(), np.array([[-1.0, -0.2], [-0.2, -0.2]], np.float32))
    (only,) = dpo_loss_terms(DpoLoss(beta=2.0))
    found = only.loss_sum(tenths, batch)
    assert float(found.loss) == pytest.approx(2.006409, abs=1e-5)
    assert {name: float(value) for name, value in found.statistics.items()} == pytest.approx(
        {"loss": 2.006409, "accuracy": 0.5, "margin": -1.0, "chosen_reward": -1.0, "rejected_reward": 0.0}, abs=1e-5
    )
    assert only.count(batch) == 2.0
    assert batch.rows(np.array([1])).ref_chosen.tolist() == pytest.approx([-0.2])
    assert batch.rows(np.array([1])).pairs.chosen.input_ids.tolist() == [[8, 9, 2, 0]]


@pytest.mark.parametrize("on_left", [False, True])
def test_orpo_of_sequences_by_hand(on_left: bool) -> None:
    # Chosen sides 5 | 6 7 2 and 8 9 | 2, of which 5 and 8 have nothing before them: 1.5 + 1.1 nats in 5 tokens.
    # A token's mean log-prob is -0.5 against -0.2, and twice -0.2: log odds 0.432752 against 1.507772, and a tie, which
    # cost 0.5 ln(1 + e^1.075020) = 0.684327 and 0.5 ln 2 = 0.346574.
    given = pairs_padded_on_the_left(pairs()) if on_left else pairs()
    batch = step_batch(given, np.zeros((2, 2), np.float32))
    logprobs = (-torch.from_numpy(stack(given).input_ids) / 10).requires_grad_()
    (only,) = dpo_loss_terms(OrpoLoss(weight=0.5, likelihood="sequence"))
    found = only.loss_sum(lambda ids, attended, asked, temperature: torch.where(asked, logprobs, 0.0), batch)
    assert found.loss.item() / only.count(batch) == pytest.approx(0.52 + (0.684327 + 0.346574) / 2, abs=1e-6)
    assert float(found.statistics["nll"]) / only.count(batch) == pytest.approx(0.52)
    found.loss.backward()
    # Each of the five: 2 / 5 of the two rows' sum. By the odds: 0.5 sigmoid(1.075020) = 0.372775 and 0.5 sigmoid(0)
    # = 0.25, over 1 - e^-0.5 = 0.393469 or 1 - e^-0.2 = 0.181269, and over the response's tokens.
    first = [0.0, *3 * [-0.4 - 0.372775 / 0.393469 / 3]]
    second = [0.0, -0.4, -0.4 - 0.25 / 0.181269]
    rejected = [0.0, 0.372775 / 0.181269, 0.0, 0.0, 0.25 / 0.181269]
    assert logprobs.grad is not None
    real = logprobs.grad[torch.from_numpy(stack(given).attention_mask)]
    assert real.tolist() == pytest.approx(first + second + rejected, abs=1e-5)
    # A row alone is still divided by the 2.5 tokens of the two: (0.9 + 0.2) / 2.5.
    alone = only.loss_sum(tenths, batch.rows(np.array([1])))
    assert float(alone.statistics["nll"]) == pytest.approx(0.44)


@pytest.mark.parametrize(("likelihood", "num_asked"), [("response", 6), ("sequence", 7)])
def test_a_prompt_is_asked_about_where_its_likelihood_is_learnt(likelihood: Any, num_asked: int) -> None:
    # Six tokens of responses; of the chosen side's prompts only the 9 stands behind another token.
    (only,) = dpo_loss_terms(OrpoLoss(likelihood=likelihood))
    masks: list[torch.Tensor] = []

    def forward(ids: Any, attended: Any, asked: torch.Tensor, temperature: float) -> torch.Tensor:
        masks.append(asked)
        return tenths(ids, attended, asked, temperature)

    only.loss_sum(forward, step_batch(pairs(), np.zeros((2, 2), np.float32)))
    assert [int(mask.sum()) for mask in masks] == [num_asked]
