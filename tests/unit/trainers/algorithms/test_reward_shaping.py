"""From scores to the rewards of tokens, by hand."""

import pytest
import torch

from plumbob.configs.settings.algorithms import LengthPenaltySettings, OverlongPenaltySettings, ShapingSettings
from plumbob.trainers.algorithms.reward_shaping import overlong_penalty, shaped_rewards, task_rewards, token_rewards

NAN = float("nan")
ENDS = torch.tensor([True, False, True])
LENGTHS = torch.tensor([4, 7, 5])
WITH_ANSWERS = torch.tensor([4, 7, 6])
"""The same with what an environment wrote: a token of the last one."""


def shaped(**changes):
    settings = ShapingSettings(**({"clip": None, "missing_eos_penalty": 0.0} | changes))
    return shaped_rewards(
        torch.tensor([3.0, -8.0, 0.5]), ENDS, LENGTHS, WITH_ANSWERS, settings, max_tokens=7
    ).rewards.tolist()


def test_each_part_by_itself():
    assert shaped() == [3.0, -8.0, 0.5]
    assert shaped(scale=0.5) == [1.5, -4.0, 0.25]
    assert shaped(clip=2.0) == [2.0, -2.0, 0.5]
    assert shaped(missing_eos_penalty=1.5) == [3.0, -9.5, 0.5]
    # Tokens past the fifth: 0, 2 and 0.
    assert shaped(length_penalty=LengthPenaltySettings(free_tokens=5, per_token=0.25)) == [3.0, -8.5, 0.5]


def test_the_overlong_penalty_grows_over_the_cache_and_stays():
    # L_max 10, L_cache 4: nothing up to 6, a quarter at 7, all from 10 on; times 2.
    lengths = torch.tensor([1, 6, 7, 9, 10, 12])
    settings = OverlongPenaltySettings(cache_tokens=4)
    assert overlong_penalty(lengths, settings, 10).tolist() == [0.0, 0.0, 0.25, 0.75, 1.0, 1.0]
    doubled = settings.model_copy(update={"penalty": 2.0})
    assert overlong_penalty(lengths, doubled, 10).tolist() == [0.0, 0.0, 0.5, 1.5, 2.0, 2.0]
    # L_max 7, L_cache 3, of 4, 7 and 6 tokens, which the limit counts: 0, 1 and 2/3, after the clip.
    overlong = OverlongPenaltySettings(cache_tokens=3)
    assert shaped(clip=2.0, overlong_penalty=overlong) == pytest.approx([2.0, -3.0, 0.5 - 2 / 3])


def test_the_tasks_reward_is_before_anything_is_taken_off():
    settings = ShapingSettings(
        scale=2.0,
        clip=5.0,
        missing_eos_penalty=1.0,
        length_penalty=LengthPenaltySettings(free_tokens=1, per_token=1.0),
        overlong_penalty=OverlongPenaltySettings(cache_tokens=3),
    )
    assert task_rewards(torch.tensor([3.0, -8.0, 0.5]), settings).tolist() == [5.0, -5.0, 1.0]


def test_scaled_then_clipped_then_penalised():
    # 2 x 3 = 6 -> 5; 2 x -8 = -16 -> -5, less 1 (no EOS), less 3 x 0.5 (past the fourth token); 2 x 0.5 less 0.5.
    penalty = LengthPenaltySettings(free_tokens=4, per_token=0.5)
    found = shaped(scale=2.0, clip=5.0, missing_eos_penalty=1.0, length_penalty=penalty)
    assert found == pytest.approx([5.0, -7.5, 0.5])


def test_the_reward_stands_on_the_last_token_and_the_penalty_on_each():
    # beta 0.1. Row 0 has a hole; row 1 is empty, its reward of 9 stands nowhere.
    mask = torch.tensor([[False, True, False, True], [False] * 4])
    kl = torch.tensor([[NAN, 1.0, NAN, -2.0], [NAN] * 4])
    found = token_rewards(torch.tensor([3.0, 9.0]), torch.zeros(2, 4), kl, mask, 0.1)
    torch.testing.assert_close(found, torch.tensor([[0.0, -0.1, 0.0, 3.2], [0.0] * 4]))


def test_what_turns_earn_stands_on_their_last_tokens_and_the_rest_at_the_end():
    # Two turns, of columns 1 and 2 and of 4. The first earned 2 and the last 0.5 of a whole of 2.25 (0.25 was taken
    # off): 2 at column 2, and 0.5 + (2.25 - 2.5) at column 4. Nothing stands on what the policy did not write.
    mask = torch.tensor([[False, True, True, False, True]])
    turns = torch.tensor([[NAN, 0.0, 2.0, NAN, 0.5]])
    found = token_rewards(torch.tensor([2.25]), turns, torch.zeros(1, 5), mask, 0.1)
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0, 2.0, 0.0, 0.25]]))
