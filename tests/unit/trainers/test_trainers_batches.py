"""What the objectives are given: padded pairs, counted tokens, and rows of the journal."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from data.tokens import PairBatch, TokenSequence, collate
from reward.bert import EncodedPair
from reward.scorer import Score
from rollout.records import Rollout, SampleRequest
from trainers.dpo import DpoBatch, dpo_passes, pair_logprobs, stack
from trainers.experience import Evaluated
from trainers.ppo_recorder import journal_rows
from trainers.reward import RewardBatch, collate_pairs, pair_loss
from trainers.tokens import next_token_loss, num_predicted_tokens, num_tokens


def sequence(prompt: list[int], answer: list[int]) -> TokenSequence:
    ids = np.array(prompt + answer, np.int32)
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


def test_the_log_probs_of_a_pair_are_summed_over_its_answers() -> None:
    # Answers 6, 7, 2 -> -1.5 against 2 -> -0.2; and 2 against 2.
    found = pair_logprobs(tenths, pairs())
    torch.testing.assert_close(found, torch.tensor([[-1.5, -0.2], [-0.2, -0.2]]))


def test_dpo_by_hand() -> None:
    # beta 2, references -1.0 and -0.2 for pair 0: margin 2 ((-1.5 + 1.0) - (-0.2 + 0.2)) = -1; pair 1: 0.
    # Loss ln(1 + e) + ln 2 = 1.313262 + 0.693147; one wrong, one tie: 0.5 right.
    batch = DpoBatch(pairs(), np.array([-1.0, -0.2], np.float32), np.array([-0.2, -0.2], np.float32))
    (only,) = dpo_passes(2.0)
    found = only.loss_sum(tenths, batch)
    assert float(found.loss) == pytest.approx(2.006409, abs=1e-5)
    assert {name: float(value) for name, value in found.statistics.items()} == pytest.approx(
        {"loss": 2.006409, "accuracy": 0.5, "margin": -1.0, "chosen_reward": -1.0}, abs=1e-5
    )
    assert only.count(batch) == 2.0
    assert batch.rows(np.array([1])).ref_chosen.tolist() == pytest.approx([-0.2])
    assert batch.rows(np.array([1])).pairs.chosen.input_ids.tolist() == [[8, 9, 2, 0]]


def test_the_next_token_loss_leaves_out_what_nothing_predicts() -> None:
    batch = collate([sequence([], [3, 4]), sequence([5], [6, 7])], pad_id=0)
    # Column 0 of row 0 is to be learnt, and nothing stands before it: 0.4 + 0.6 + 0.7, over 3 tokens.
    assert float(next_token_loss(tenths, batch).loss) == pytest.approx(1.7)
    assert (num_predicted_tokens(batch), num_tokens(batch)) == (3.0, 5)
    assert batch.loss_mask[0].tolist() == [True, True, False]


def test_reward_pairs_stand_side_by_side_and_are_cut_to_the_longest() -> None:
    ids = np.array([[[1, 2, 3], [1, 2, 0]], [[1, 0, 0], [1, 2, 0]]])
    batch = RewardBatch(ids, (ids > 0).astype(np.int64), np.zeros_like(ids))
    assert batch.num_rows == 2
    assert batch.rows(np.array([1])).input_ids.tolist() == [[[1, 0], [1, 2]]]
    # Rewards: sums of ids, 6 against 3 and 1 against 3: ln(1 + e^-3) + ln(1 + e^2) = 0.048587 + 2.126928.
    found = pair_loss(lambda ids, mask, types: ids.sum(dim=1).float(), batch)
    assert float(found.loss) == pytest.approx(2.175515, abs=1e-5)
    assert float(found.statistics["accuracy"]) == 1.0 and float(found.statistics["margin"]) == 1.0


def test_rows_of_the_journal_line_up_with_their_tokens() -> None:
    def rollout(place: int, prompt: list[int], answer: list[int]) -> Rollout:
        request = SampleRequest(f"p{place}", "g", place, 9, "q", np.array(prompt, np.int32))
        ids = np.array(answer, np.int32)
        return Rollout(request, "stop", "a", ids, -ids / 10, ids * 0 + 4, ids > 0, "rollout-0")

    rollouts = [rollout(0, [5, 6], [7]), rollout(1, [5], [6, 7, 2]), rollout(2, [5], [])]
    grid = torch.arange(12.0).reshape(3, 4)
    evaluated = Evaluated(grid, grid + 100, grid + 200)
    scores = [Score(total, {"bert": total, "length": 0.5}) for total in (1.0, 2.0, 3.0)]
    rows = journal_rows(rollouts, scores, evaluated)
    # Row 0's answer is column 2; row 1's are columns 1 to 3; row 2 has none.
    assert [row.ref_logprobs.tolist() for row in rows] == [[102.0], [105.0, 106.0, 107.0], []]
    assert [row.values.tolist() for row in rows] == [[202.0], [205.0, 206.0, 207.0], []]
    assert [row.logprobs.tolist() for row in rows] == [pytest.approx([-0.7]), pytest.approx([-0.6, -0.7, -0.2]), []]
    assert [(row.prompt_id, row.score, row.rewards["bert"]) for row in rows] == [
        ("p0", 1, 1),
        ("p1", 2, 2),
        ("p2", 3, 3),
    ]
    assert all(len(row.versions) == len(row.token_ids) == len(row.action_mask) for row in rows)


@pytest.mark.parametrize("names, types", [((), [0, 0, 0]), (("token_type_ids",), [0, 1, 0])])
def test_encoded_pairs_side_by_side(names: tuple[str, ...], types: list[int]) -> None:
    tokenizer = SimpleNamespace(pad_token_id=9, model_input_names=("input_ids", *names))
    long, short = EncodedPair((1, 2, 3), (0, 1, 0)), EncodedPair((4,), (0,))
    found = collate_pairs(tokenizer, [(long, short)])
    assert found.input_ids.tolist() == [[[1, 2, 3], [4, 9, 9]]]
    assert found.attention_mask.tolist() == [[[1, 1, 1], [1, 0, 0]]]
    assert found.token_type_ids.tolist() == [[types, [0, 0, 0]]]
