"""How rows are cut: by hand, never above what memory was planned for, every row once, as many parts on every rank."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from plumbob.data.batch import Prompts
from plumbob.trainers.learner.micro_batches import COPIED, PASS_TOKENS, Rows, cut_evenly


def cut(lengths: list[int], size: int, prompts: Prompts | None = None) -> list[list[int]]:
    (parts,) = cut_evenly([np.arange(len(lengths))], np.array(lengths), prompts, size, "cpu")
    return [part.tolist() for part in parts]


def test_rows_of_one_length_are_cut_by_their_number() -> None:
    assert cut([50] * 5, 2) == [[0, 1], [2, 3], [4]]


def test_short_rows_are_computed_more_at_a_time() -> None:
    # 2 x 100 tokens at once: both long rows, then the 20 short ones together, not two by two.
    assert cut([10] * 10 + [100, 100] + [10] * 10, 2) == [[10, 11], [*range(10), *range(12, 22)]]


def test_a_cut_is_made_where_it_saves_more_padding_than_a_pass_costs() -> None:
    # Beside a row of 100, four of 90 are padded by 40 tokens, four of 60 by 160; a pass costs 64.
    assert PASS_TOKENS["cpu"] == 64
    assert cut([100, 90, 90, 90, 90], 8) == [[0, 1, 2, 3, 4]]
    assert cut([100, 60, 60, 60, 60], 8) == [[1, 2, 3, 4], [0]]  # 240 tokens before 100.


def test_rows_with_the_same_prompt_come_together_where_that_saves_tokens() -> None:
    # Prompts of 100 tokens, responses of 20 and 10 to each. By length 2 x 120 and 2 x 110 tokens; by prompt 140 each.
    lengths, prompts = [120, 110, 110, 120], Prompts(np.array([0, 1, 0, 1]), np.full(4, 100))
    assert cut(lengths, 2, prompts) == [[0, 2], [3, 1]]
    assert cut(lengths, 2) == [[0, 3], [1, 2]]
    # Of prompts of 10 tokens less is saved than rows of another length are padded by.
    assert cut([120, 15, 15, 120], 2, prompts._replace(lengths=np.full(4, 10))) == [[0, 3], [1, 2]]


def rows_of_ranks(num_rows: int, num_ranks: int) -> list[Rows]:
    share = -(-num_rows // num_ranks)
    return [np.minimum(np.arange(share) * num_ranks + rank, num_rows - 1) for rank in range(num_ranks)]


@given(
    lengths=st.lists(st.integers(2, 60), min_size=1, max_size=24),
    size=st.integers(1, 6),
    num_ranks=st.integers(1, 3),
    num_prompts=st.integers(0, 5),
)
def test_every_rank_computes_each_of_its_rows_once_within_the_budget(
    lengths: list[int], size: int, num_ranks: int, num_prompts: int
) -> None:
    shares, every = rows_of_ranks(len(lengths), num_ranks), np.array(lengths)
    numbers = np.arange(len(every)) % num_prompts if num_prompts else None
    prompts = None if numbers is None else Prompts(numbers, np.minimum(every - 1, 20))
    cuts = cut_evenly(shares, every, prompts, size, "cpu")
    assert len({len(parts) for parts in cuts}) == 1
    for parts, rows in zip(cuts, shares, strict=True):
        assert sorted(itertools.chain(*(part.tolist() for part in parts))) == list(range(len(rows)))
        for part in parts:
            index = rows[part]
            whole = len(index) * every[index].max()
            held = whole
            if numbers is not None:
                before = np.minimum(every[index] - 1, 20)
                shared = len(set(numbers[index])) * before.max() + len(index) * (every[index] - before).max()
                held = min(held, shared + COPIED * whole)
            assert len(index) == 1 or held <= size * every.max()
