"""Counts and histograms of tokens, on lengths that are counted by hand."""

import numpy as np

from plumbob.configs.settings.data import LengthSettings
from plumbob.data.tokenization import TokenSequence, TooLong
from plumbob.driver.input_sizes.token_lengths import (
    Bin,
    TokenLengths,
    tokens_of_cut,
    tokens_of_prompts,
    tokens_of_sequences,
)


def lengths(*numbers: int, most: int | None = None) -> TokenLengths:
    return TokenLengths("prompt", None, most, np.array(numbers, dtype=np.int64))


def sequence(num_prompt: int, num_response: int) -> TokenSequence:
    mask = np.arange(num_prompt + num_response) >= num_prompt
    return TokenSequence(np.zeros(len(mask), np.int32), mask)


def test_a_histogram_has_eight_bins_of_one_width() -> None:
    # 3 to 20 are 18 lengths: six bins of 3, of which the fourth, from 12 to 14, is empty.
    found = lengths(3, 3, 5, 6, 9, 20, 17, 16).histogram()
    assert found == (Bin(3, 5, 3), Bin(6, 8, 1), Bin(9, 11, 1), Bin(12, 14, 0), Bin(15, 17, 2), Bin(18, 20, 1))
    assert lengths(7).histogram() == (Bin(7, 7, 1),)
    assert [one.num_records for one in lengths(*range(1, 9)).histogram()] == [1] * 8


def test_quantiles_are_lengths_that_there_are() -> None:
    found = lengths(4, 1, 3, 2, most=3)
    # Half of four are within the second, 95% (3.8 of 4) within the fourth.
    assert (found.quantile(0.5), found.quantile(0.95), found.num_over) == (2, 4, 1)
    assert found.as_dict() == {
        **{"name": "prompt", "limit": 3, "num": 4, "num_over_limit": 1, "min": 1, "median": 2, "p95": 4, "max": 4},
        **{"total": 10, "histogram": [{"first": n, "last": n, "num_records": 1} for n in (1, 2, 3, 4)]},
    }


def test_what_limits_leave_out_is_in_the_lengths() -> None:
    rules = LengthSettings(max_prompt_tokens=4, max_response_tokens=6)
    pairs = [(sequence(2, 5), sequence(2, 1)), (sequence(4, 3), sequence(4, 6))]
    found = tokens_of_sequences("data.pairs", pairs, [TooLong("prompt", 9), TooLong("response", 7)], rules, 3)
    assert (found.num_used, found.num_dropped, found.num_heldout) == (2, 2, 3)
    prompt, response = found.parts
    assert (prompt.limit, prompt.lengths.tolist(), prompt.num_over) == ("data.max_prompt_tokens=4", [2, 4, 9], 1)
    assert (response.lengths.tolist(), response.num_over) == ([5, 1, 3, 6, 7], 1)
    asked = tokens_of_prompts("data.prompts", [np.arange(3), np.arange(1)], [TooLong("prompt", 5)], 4)
    assert (asked.num_used, asked.num_dropped, asked.parts[0].lengths.tolist()) == (2, 1, [3, 1, 5])
    # A reward model reads what is too long without the beginning of its prompt: none is left out.
    cut = tokens_of_cut("data.pairs", [[5, 9], [4, 3]], "reward.max_tokens", 8)
    assert (cut.num_used, cut.num_dropped, cut.parts[0].num_over) == (2, 0, 1)
