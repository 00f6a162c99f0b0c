"""How rows are cut into micro-batches: as many tokens at a time as memory was planned for, with little padding.

Rows of like length stand together, or rows with the same prompt, whichever leaves fewer tokens to compute. Where each
micro-batch ends is found by dynamic programming over that order.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from plumbob.data.batch import Prompts
from plumbob.models.forward.shared_prompts import WORTH

PASS_TOKENS = {"cpu": 64, "cuda": 4096}
"""What a pass through the layers costs beside its tokens, in tokens.

On a CPU 60 to 90 with a Llama of 3.4 M, and fewer with a larger one. On a GPU nothing was measured: hardly more passes
are made there than memory asks for.
"""

BLOCK = 16
"""Tokens that a matrix product takes at once: fewer take as long."""

COPIED = 0.2
"""Of what a token's activations take, its keys and values: each row has a copy of its prompt's."""

TABLE = 2**14
"""Micro-batches whose tokens are counted at once: what is counted of them stays in a core's cache."""

Rows = NDArray[np.int64]


class Cut(NamedTuple):
    """Micro-batches, as positions in the rows that were cut, and the tokens that they take to compute."""

    parts: list[Rows]
    num_tokens: float


def cut_evenly(
    rows_of_ranks: Sequence[Rows], lengths: Rows, prompts: Prompts | None, size: int, device: str
) -> list[list[Rows]]:
    """The micro-batches of each rank's rows, as many on every rank: positions among its rows.

    Args:
        rows_of_ranks: of each rank, its rows of the batch; as many on every rank.
        lengths: real tokens of each row of the batch, [B].
        prompts: of the batch; None where a model computes each row by itself.
        size: how many of the longest rows are computed at once, at most: shorter ones may be more.
    """
    budget = size * int(lengths.max())
    cuts = [
        _shortest(lengths[rows], None if prompts is None else prompts.rows(rows), budget, PASS_TOKENS[device])
        for rows in rows_of_ranks
    ]
    most = max(map(len, cuts))
    return [_split(cut, lengths[rows], most) for cut, rows in zip(cuts, rows_of_ranks, strict=True)]


def cut_own(
    lengths: Rows, prompts: Prompts | None, size: int, device: str, largest: Callable[[int], int]
) -> list[Rows]:
    """The micro-batches of one rank's rows, as `cut_evenly` cuts them, as positions among these rows.

    Args:
        lengths, prompts: of this rank's rows alone; each rank has as many.
        largest: a number of each rank's -> the largest of them, which all have to ask for.
    """
    cut = _shortest(lengths, prompts, size * largest(int(lengths.max())), PASS_TOKENS[device])
    return _split(cut, lengths, largest(len(cut)))


def _shortest(lengths: Rows, prompts: Prompts | None, budget: int, pass_tokens: int) -> list[Rows]:
    """The cut with the fewest tokens; the longest micro-batches come first, so that memory peaks at once."""
    nothing = np.zeros(len(lengths), dtype=np.int64)
    each = Prompts(np.arange(len(lengths)), nothing) if prompts is None else prompts
    orders = [np.argsort(-lengths, kind="stable")]
    if len(np.unique(each.numbers)) < len(lengths):
        longest = np.zeros(each.numbers.max() + 1, dtype=np.int64)
        np.maximum.at(longest, each.numbers, lengths)
        orders.append(np.lexsort((-lengths, each.numbers, -longest[each.numbers])))
    found = [_cut_in_order(order, lengths, each, budget, pass_tokens) for order in orders]
    parts = min(found, key=lambda cut: cut.num_tokens).parts
    return sorted(parts, key=lambda part: -len(part) * int(lengths[part].max()))


def _cut_in_order(order: Rows, lengths: Rows, prompts: Prompts, budget: int, pass_tokens: int) -> Cut:
    """The best ends of micro-batches of rows in this order: best[j] = min over i of best[i] + cost of rows i to j."""
    num_rows = len(order)
    best, starts = np.full(num_rows + 1, np.inf), np.zeros(num_rows + 1, dtype=np.int64)
    best[0] = 0
    ordered = Prompts(prompts.numbers[order], prompts.lengths[order])
    for start, tokens in enumerate(_tokens_from_each(lengths[order], ordered, budget)):
        cost = best[start] + pass_tokens + tokens
        ends = slice(start + 1, start + 1 + len(cost))
        better = cost <= best[ends]  # Of equal ones the first micro-batches are the largest.
        best[ends][better], starts[ends][better] = cost[better], start
    parts = []
    end = num_rows
    while end:
        parts.append(order[starts[end] : end])
        end = int(starts[end])
    return Cut(parts[::-1], float(best[-1]))


def _tokens_from_each(lengths: Rows, prompts: Prompts, budget: int) -> Iterator[NDArray[np.float64]]:
    """Of each row the tokens of micro-batches that begin with it, by how many rows they have; inf above the budget.

    Many rows' at a time, as a table of rows and sizes: one by one the calls would take longer than what they compute.
    """
    num_rows = len(lengths)
    most = min(num_rows, budget // max(1, int(lengths.min())) + 1)
    previous = _previous(prompts.numbers)

    def windows(values: Rows) -> Rows:
        """[B, most]: those of each row and of the rows after it; 0 after the last."""
        return sliding_window_view(np.concatenate([values, np.zeros(most - 1, dtype=np.int64)]), most)

    of_each = [windows(values) for values in (lengths, lengths - prompts.lengths, prompts.lengths, previous)]
    at_once = max(1, TABLE // most)
    for first in range(0, num_rows, at_once):
        several, sizes = slice(first, first + at_once), slice(min(most, num_rows - first))
        longest, response, prompt = (np.maximum.accumulate(each[several, sizes], axis=1) for each in of_each[:3])
        num = np.arange(1, longest.shape[1] + 1)
        whole = num * longest
        num_prompts = np.cumsum(of_each[3][several, sizes] < np.arange(num_rows)[several, None], axis=1)
        shared = num_prompts * prompt + num * response
        is_shared = (num_prompts < num) & (shared <= WORTH * whole)
        tokens = np.where(is_shared, shared, whole)
        held = np.where(is_shared, shared + COPIED * whole, whole)
        blocks = np.where((held <= budget) | (num == 1), -(-tokens // BLOCK) * BLOCK, np.inf)
        for start, row in enumerate(blocks, first):
            yield row[: num_rows - start]


def _previous(numbers: Rows) -> Rows:
    """Of each row the position of the row before it with the same number; -1 where there is none."""
    last: dict[int, int] = {}
    previous = np.full(len(numbers), -1, dtype=np.int64)
    for position, number in enumerate(numbers.tolist()):
        previous[position] = last.get(number, -1)
        last[number] = position
    return previous


def _split(parts: list[Rows], lengths: Rows, num: int) -> list[Rows]:
    """As many micro-batches as were asked for, and at most as many as there are rows: the largest are halved."""
    parts = list(parts)
    while len(parts) < min(num, len(lengths)):
        index = max(
            (i for i, part in enumerate(parts) if len(part) > 1), key=lambda i: len(parts[i]) * lengths[parts[i]].max()
        )
        part, middle = parts[index], (len(parts[index]) + 1) // 2
        parts[index : index + 1] = [part[:middle], part[middle:]]
    return parts
