"""The picture of a step's parts: what it takes from the results."""

from pathlib import Path

import pytest

from benchmarks.row_medians import Row
from benchmarks.step_picture import BEFORE, PHASES, bars_of, draw

NAME = "rloo-3m-full-32x4-f32"
NOTE = "TRL tuned; Plumbob's step in s: sample 1.20, learn 0.80, evaluate 0.50; tokens 64.0 and 64.0"


def row(name: str, note: str = NOTE, ratio: float | None = 2.0) -> Row:
    return Row(name, "responses/s", 20.0, 10.0, ratio, 1.5, True, note=note, date="2026-11-30")


def test_a_step_of_today_stands_below_what_it_was() -> None:
    before, now = bars_of([row(f"{NAME} / best"), row("dpo-3m-f32 / best")])
    assert before == BEFORE[NAME]
    # Of 2.5 s in all, where TRL is half as fast and takes 5: 1.2 / 5, 0.5 / 5 and 0.8 / 5.
    assert now.shares() == pytest.approx(dict.fromkeys(PHASES, 0.0) | {"sample": 0.24, "logprobs": 0.1, "learn": 0.16})
    assert now.label == "3 M, 2026-11-30"


def test_what_could_not_be_measured_is_left_out() -> None:
    assert bars_of([row(f"{NAME} / best", ratio=None)]) == []


def test_it_is_drawn(tmp_path: Path) -> None:
    draw(bars_of([row(f"{NAME} / best")]), tmp_path / "pictures" / "step.svg")
    assert (tmp_path / "pictures/step.svg").read_text().count("<path") > len(PHASES)
