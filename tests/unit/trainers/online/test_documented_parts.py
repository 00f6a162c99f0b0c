"""The example of parts of different scales in docs/rewards.md, computed."""

import re
from pathlib import Path

import pytest
import torch

from plumbob.configs.load_run import load_run
from plumbob.configs.runs import OnlineRun
from plumbob.reward.scorer import Score
from plumbob.trainers.online.part_rewards import combined_scores

DOCS = Path(__file__).parents[4] / "docs/rewards.md"
LINE = re.compile(
    r"^\| (\d) \| (\d) \| (\d+) \| (\d) \| (\d+) \| (-?[\d.]+) ([+-]) ([\d.]+) = (-?[\d.]+) \|$", re.MULTILINE
)
PARTS = """[
    {kind: model, model: m, name: right},
    {kind: model, model: m, name: style, weight: 0.5},
    {kind: length, name: marked, max: 9, is_gate: true, weight: 0},
]"""


def test_each_line_is_what_the_run_learns_from() -> None:
    lines = LINE.findall(DOCS.read_text(encoding="utf-8"))
    assert len(lines) == 4
    given = ["policy.model=p", "data.prompts=f", f"reward.parts={PARTS}", "online.samples_per_prompt=4"]
    scores = []
    for _, right, style, marked, total, *_ in lines:
        parts = {"right": float(right), "style": float(style), "marked": float(marked)}
        assert (parts["right"] + 0.5 * parts["style"] if parts["marked"] else 0.0) == float(total)
        scores.append(Score(float(total), parts))
    for combined, column in (("sum", 4), ("standardised", 8)):
        run = load_run("rloo", [*given, f"online.combine_parts={combined}"])
        assert isinstance(run, OnlineRun)
        found = combined_scores(run, scores, torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.int64))
        assert found.totals.tolist() == pytest.approx([float(line[column]) for line in lines], abs=6e-4)
    for (_, _, _, _, _, first, sign, second, _), right, style in zip(
        lines, found.standardised["right"].tolist(), found.standardised["style"].tolist(), strict=True
    ):
        assert (right, style) == pytest.approx((float(first), float(f"{sign}{second}")), abs=6e-4)
