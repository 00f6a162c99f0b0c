"""Text that is replayed beside a stage's own batches: which blocks, what loss, and the gradient of a real learner."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plumbob.configs.settings.algorithms import Rloo
from plumbob.configs.settings.data import ReplaySettings
from plumbob.data.tokenization import TokenBatch, TokenSequence, collate
from plumbob.trainers.forgetting.next_token import NEXT_TOKEN_LOSS_TERMS
from plumbob.trainers.forgetting.packed_text import PackedText
from plumbob.trainers.forgetting.replay import WithReplay, replay_loss_terms, with_replay
from plumbob.trainers.online.objective import online_loss_terms
from tests.support.learner_ranks import (
    PPO,
    TEMPERATURE,
    WHOLE,
    LearnerCase,
    Ranks,
    numpy_state,
    ragged_experience,
    tiny_learner,
)

GAMMA = 2.0
REPLAY = ReplaySettings(text="text.txt", coefficient=GAMMA)


def sequence(ids: list[int], num_given: int) -> TokenSequence:
    return TokenSequence(np.array(ids, np.int32), np.arange(len(ids)) >= num_given)


def blocks(*rows: list[int]) -> PackedText:
    return PackedText(tuple(sequence(row, 0) for row in rows), pad_id=0, notes=())


def tenths(input_ids: torch.Tensor, attention_mask: torch.Tensor, mask: torch.Tensor, temperature: float) -> Any:
    """As log-probs: minus a tenth of each token's id, where asked."""
    return torch.where(mask, -input_ids / 10, 0.0)


def test_each_row_gets_a_block_and_each_block_its_turn() -> None:
    text = blocks([1], [2], [3])
    batch = collate([sequence([5, 6], 1), sequence([7, 8], 1)], pad_id=0)
    found = [with_replay(text, batch, step, seed=4) for step in range(3)]
    assert all(isinstance(one, WithReplay) and one.num_rows == 2 for one in found)
    # Three steps of two rows are two epochs of the three blocks.
    used = [int(one.replayed.input_ids[row, 0]) for one in found for row in (0, 1)]  # type: ignore[union-attr]
    assert sorted(used[:3]) == sorted(used[3:]) == [1, 2, 3]
    again = with_replay(text, batch, 1, seed=4)
    assert again.replayed.input_ids.tolist() == found[1].replayed.input_ids.tolist()  # type: ignore[union-attr]
    assert with_replay(None, batch, 0, seed=4) is batch
    picked = found[0].rows(np.array([1]))
    assert picked.batch.input_ids.tolist() == [[7, 8]]  # type: ignore[union-attr]
    assert picked.replayed.input_ids.tolist() == [[used[1]]]  # type: ignore[union-attr]


def test_the_loss_by_hand() -> None:
    # Own: responses 6, 7, 2 and 2 cost 1.7 over 4 tokens. Replayed: 4, 5 and 7, after first tokens, cost 1.6 over 3.
    own = collate([sequence([5, 6, 7, 2], 1), sequence([8, 9, 2], 2)], pad_id=0)
    batch = WithReplay(own, collate([sequence([3, 4, 5], 0), sequence([6, 7], 0)], pad_id=0))
    first, second = replay_loss_terms(NEXT_TOKEN_LOSS_TERMS, REPLAY)
    assert (first.count(batch), second.count(batch), second.role) == (4.0, 3.0, "policy")
    assert float(first.loss_sum(tenths, batch).loss) == pytest.approx(1.7)
    sums = second.loss_sum(tenths, batch)
    assert float(sums.loss) == pytest.approx(GAMMA * 1.6)
    assert float(sums.statistics["replay_loss"]) == pytest.approx(1.6)
    # Held-out records have no blocks beside them: the stage's own figures, and nothing of the text.
    assert float(first.loss_sum(tenths, own).loss) == pytest.approx(1.7)
    assert second.loss_sum(tenths, own).statistics == {}
    assert replay_loss_terms(NEXT_TOKEN_LOSS_TERMS, None) == NEXT_TOKEN_LOSS_TERMS


def ragged_rows(seed: int) -> TokenBatch:
    random = np.random.default_rng(seed)
    return collate([sequence(random.integers(1, 40, 3 + row).tolist(), 1) for row in range(8)], pad_id=0)


def gradient_of(folder: Path, micro_batch_size: int, part: str) -> dict[str, np.ndarray]:
    """Adam's first moment after one step, 0.1 times the gradient; nothing is clipped."""
    online = PPO.model_copy(update={"estimator": Rloo(), "max_grad_norm": 1e9})
    loss_terms = NEXT_TOKEN_LOSS_TERMS if part != "both" else replay_loss_terms(NEXT_TOKEN_LOSS_TERMS, REPLAY)
    learner = tiny_learner(LearnerCase(folder, micro_batch_size=micro_batch_size), online, loss_terms)
    own, replayed = ragged_rows(0), ragged_rows(1)
    learner.update({"own": own, "replayed": replayed, "both": WithReplay(own, replayed)}[part], WHOLE)
    return {name: moment for name, moment in numpy_state(learner).items() if name.startswith("exp_avg.")}


def test_the_gradient_is_the_sum_whatever_the_micro_batches_and_ranks(
    one_rank: Ranks, two_ranks: Ranks, llama: Path
) -> None:
    own, replayed, *both = (
        ranks.run(gradient_of, llama, size, part)[0]
        for ranks, size, part in (
            *((one_rank, 8, "own"), (one_rank, 8, "replayed"), (one_rank, 8, "both")),
            *((one_rank, 3, "both"), (two_ranks, 1, "both")),
        )
    )
    for found in both:
        for name, moment in found.items():
            expected = own[name] + GAMMA * replayed[name]
            np.testing.assert_allclose(moment, expected, atol=2e-5 * np.abs(expected).max(), err_msg=name)
    assert max(np.abs(moment).max() for moment in replayed.values()) > 1e-3


def ppo_gradient_of(folder: Path, zero_stage: int, replayed: bool) -> dict[str, np.ndarray]:
    """The same for the clipped surrogate with a critic, on eight ragged responses."""
    online = PPO.model_copy(update={"max_grad_norm": 1e9})
    loss_terms = replay_loss_terms(online_loss_terms(online, TEMPERATURE), REPLAY if replayed else None)
    learner = tiny_learner(LearnerCase(folder, zero_stage=zero_stage, micro_batch_size=3), online, loss_terms)
    batch = ragged_experience(online)
    learner.update(WithReplay(batch, ragged_rows(1)) if replayed else batch, WHOLE)
    return {name: moment for name, moment in numpy_state(learner).items() if name.startswith("exp_avg.")}


def test_ppo_with_replay_adds_to_the_policy_alone(one_rank: Ranks, llama: Path) -> None:
    text = one_rank.run(gradient_of, llama, 8, "replayed")[0]
    plain, both = (
        one_rank.run(ppo_gradient_of, llama, stage, replayed)[0] for stage, replayed in ((0, False), (2, True))
    )
    assert set(plain) == set(both) > set(text)
    for name, moment in both.items():
        # What only the critic has is as it is without the text.
        expected = plain[name] + GAMMA * text[name] if name in text else plain[name]
        np.testing.assert_allclose(moment, expected, atol=2e-5 * np.abs(expected).max(), err_msg=name)
