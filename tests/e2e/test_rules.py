"""A run with rules alone as its reward: what the journal and the metrics have is recomputed from the texts."""

import json
import re
import statistics
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence

import pytest

from plumbob.rollout.journal import JournalRow
from tests.support.small_run import TRANSFORMERS, Left, Stages
from tests.support.tiny_policy import write_policy

LETTERS = "etar"
MOST_LETTERS = 12
PARTS = [
    {"kind": "contains", "texts": ["h", "s"], "match": "any", "weight": 2.0},
    {"kind": "regex", "name": "pairs", "pattern": "[a-z]{2}", "weight": -0.5},
    {"kind": "instructions", "column": "checks"},
    {"kind": "json", "weight": 4.0},
    {"kind": "length", "unit": "characters", "max": MOST_LETTERS, "is_gate": True, "weight": 0},
]
WEIGHTS = {"contains": 2.0, "pairs": -0.5, "instructions": 1.0, "json": 4.0, "length": 0.0}


def values(row: JournalRow) -> dict[str, float]:
    """The parts' values of a response, by what docs/rewards.md says of them."""
    text = row.response
    (check,) = row.prompt_row["checks"]
    has_letters = any(letter.isalnum() for letter in text)
    keeps = has_letters and check["letter"] not in unicodedata.normalize("NFKD", text).lower()
    return {
        "contains": float("h" in text or "s" in text),
        "pairs": float(re.search("[a-z]{2}", text) is not None),
        "instructions": float(keeps),
        "json": float(is_json(text)),
        "length": float(len(text.strip()) <= MOST_LETTERS),
    }


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def total(parts: dict[str, float]) -> float:
    return sum(WEIGHTS[name] * value for name, value in parts.items()) if parts["length"] else 0.0


@pytest.fixture(scope="module", params=["sum", "standardised"])
def ruled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, stage: Stages) -> Left:
    folder = tmp_path_factory.mktemp("ruled")
    rows = [
        {"prompt": f"the car has {number}", "checks": [{"kind": "without-letter", "letter": LETTERS[number % 4]}]}
        for number in range(12)
    ]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return stage(
        f"ruled-{request.param}",
        "rloo",
        TRANSFORMERS,
        {"policy.model": write_policy(folder / "policy"), "policy.tuning.rank": 4},
        {"data.prompts": folder / "prompts.jsonl", "data.heldout_fraction": 0, "reward.parts": json.dumps(PARTS)},
        {"rollout.num_cpus": 0.25, "reward.num_cpus": 0.25, "rollout.max_tokens": 10},
        {
            "online.num_steps": 2,
            "online.prompts_per_step": 8,
            "online.samples_per_prompt": 4,
            "online.minibatch_size": 16,
            "online.combine_parts": request.param,
        },
    )


def test_each_value_and_the_total_are_what_the_texts_say(ruled: Left) -> None:
    rows = [row for _, row in ruled.journal]
    assert len(rows) == 2 * 8 * 4
    for row in rows:
        expected = values(row)
        assert dict(row.rewards) == expected
        assert row.score == pytest.approx(total(expected))
    # Each part was worth both values, so that what it gives was seen; JSON is rare.
    seen = {name: {row.rewards[name] for row in rows} for name in WEIGHTS if name != "json"}
    assert seen == {name: {0, 1} for name in seen}


def test_the_metrics_have_each_parts_mean_and_spread(ruled: Left) -> None:
    by_step = defaultdict(list)
    for step, row in ruled.journal:
        by_step[step].append(values(row))
    assert sorted(by_step) == [1, 2]
    for line in ruled.metrics:
        metrics, found = line["metrics"], by_step[line["step"]]
        assert metrics["reward"] == pytest.approx(statistics.fmean(map(total, found)), abs=1e-6)
        for name in WEIGHTS:
            column = [parts[name] for parts in found]
            assert metrics[f"reward_mean/{name}"] == pytest.approx(statistics.fmean(column))
            assert metrics[f"reward_std/{name}"] == pytest.approx(statistics.pstdev(column))
            assert f"reward_failures/{name}" not in metrics
        assert metrics["policy_grad_norm"] > 0


def standard_scores(name: str, group: Sequence[Mapping[str, float]]) -> list[float]:
    """w (v - mean) / (std + eps) of a part, whose values are 0 where the gate stops a response."""
    column = [parts[name] if parts["length"] else 0.0 for parts in group]
    mean, std = statistics.fmean(column), statistics.stdev(column)
    return [WEIGHTS[name] * (value - mean) / (std + 1e-4) for value in column]


def test_what_is_learnt_from_is_the_sum_or_each_parts_place_in_its_group(ruled: Left) -> None:
    is_sum = ruled.folder.name.endswith("sum")
    groups = defaultdict(list)
    for step, row in ruled.journal:
        groups[step, row.group_id].append(row)
    for rows in groups.values():
        found = [values(row) for row in rows]
        placed = {name: standard_scores(name, found) for name in WEIGHTS}
        for number, (row, parts) in enumerate(zip(rows, found, strict=True)):
            assert row.shaping is not None
            steps = {step.name: step.value for step in row.shaping.steps if step.kind == "part"}
            learnt = total(parts) if is_sum else sum(own[number] for own in placed.values())
            if not is_sum:
                assert steps == pytest.approx({name: own[number] for name, own in placed.items()}, abs=1e-5)
            assert row.shaping.total == pytest.approx(learnt, abs=1e-5)
