"""How rows are cut into micro-batches: as many tokens at a time as memory was planned for, with little padding.

Rows of like length stand together, or rows with the same prompt, whichever leaves fewer tokens to compute. Where each
micro-batch ends is found by dynamic programming over that order.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
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
    lengths, numbers, before = lengths[order], prompts.numbers[order], prompts.lengths[order]
    previous = _previous(numbers)
    num_rows = len(order)
    most = budget // max(1, int(lengths.min())) + 1
    best, starts = np.full(num_rows + 1, np.inf), np.zeros(num_rows + 1, dtype=np.int64)
    best[0] = 0
    for start in range(num_rows):
        window = slice(start, start + most)
        num = np.arange(1, len(lengths[window]) + 1)
        whole = num * np.maximum.accumulate(lengths[window])
        num_prompts = np.cumsum(previous[window] < start)
        responses = num * np.maximum.accumulate((lengths - before)[window])
        shared = num_prompts * np.maximum.accumulate(before[window]) + responses
        is_shared = (num_prompts < num) & (shared <= WORTH * whole)
        tokens = np.where(is_shared, shared, whole)
        held = np.where(is_shared, shared + COPIED * whole, whole)
        blocks = -(-tokens // BLOCK) * BLOCK
        cost = best[start] + pass_tokens + np.where((held <= budget) | (num == 1), blocks, np.inf)
        ends = start + num
        better = cost <= best[ends]  # Of equal ones the first micro-batches are the largest.
        best[ends[better]], starts[ends[better]] = cost[better], start
    parts = []
    end = num_rows
    while end:
        parts.append(order[starts[end] : end])
        end = int(starts[end])
    return Cut(parts[::-1], float(best[-1]))


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
