"""Cells of a bar, counted by hand."""

import pytest

from plumbob.console.live_view.phase_bar import longest_first, phase_bar


@pytest.mark.parametrize(
    ("seconds", "num_cells", "cells"),
    [
        ({"a": 1.0, "b": 1.0}, 4, [2, 2]),
        ({"a": 1.0, "b": 2.0}, 10, [3, 7]),  # 3.33 and 6.67: the cell that is left goes to b.
        ({"a": 1.0, "b": 1.0, "c": 1.0}, 8, [3, 3, 2]),  # 2.67 each: the first two have what is left.
        ({"a": 0.0}, 8, [0]),
        ({}, 8, []),
    ],
)
def test_a_bar_is_filled_by_largest_remainders(seconds: dict[str, float], num_cells: int, cells: list[int]) -> None:
    assert phase_bar(seconds, num_cells) == cells


def test_the_longest_phases_come_first_and_the_rest_together() -> None:
    assert longest_first({"a": 1.0, "b": 0.0, "c": 3.0, "d": 0.5}, 2) == {"c": 3.0, "a": 1.0, "other": 0.5}
    assert longest_first({"a": 1.0}, 2) == {"a": 1.0}
