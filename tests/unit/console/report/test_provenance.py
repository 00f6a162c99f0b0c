"""What a report says around its numbers, and what changed: by hand-made files of runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from plumbob.configs.runs import RUN_KINDS
from plumbob.console.report.before_after import before_after_section
from plumbob.console.report.provenance import (
    QUESTIONS,
    cost_section,
    data_section,
    question_section,
    reproduction_section,
)
from plumbob.rollout.journal import JOURNAL_FOLDER, write_step
from plumbob.trainers.metrics.sinks.jsonl import read_metrics
from plumbob.trainers.metrics.step_record import StepRecord
from tests.support.finished_run import HOSTILE, journal_rows, write_metrics


def cells(html: str) -> list[str]:
    """Of a table, in order."""
    return [
        part.split("</span></td>")[0].replace('<span class="interval">', "").replace("</span>", "")
        for part in html.split('"><span>')[1:]
    ]


def test_every_kind_of_run_has_its_question() -> None:
    assert QUESTIONS.keys() == RUN_KINDS.keys()


@pytest.mark.parametrize(
    ("config", "question"),
    [
        (
            {
                "kind": "online",
                "policy": {"model": "/runs/toy/sft/policy"},
                "data": {"prompts": "/d/asked.jsonl"},
                "reward": {"parts": [{"kind": "exact"}]},
            },
            "Does sft earn more of exact on asked.jsonl, and how far does it move for that?",
        ),
        (
            {"kind": "sft", "policy": {"model": "/m/base"}, "data": {"demonstrations": "rows.jsonl"}},
            "How well does base learn to answer as rows.jsonl does?",
        ),
        (
            {"kind": "pipeline", "policy": {"model": {"vocab_size": 9}}},
            "Does what people prefer make a model made from scratch better, and which way does it best?",
        ),
        ({"kind": "of another day"}, ""),
    ],
)
def test_the_question_is_told_from_the_settings(config: dict[str, Any], question: str) -> None:
    assert question_section(config) == (f'<p class="question">{question}</p>' if question else "")


def test_data_and_models_are_known_by_digest() -> None:
    inputs = {"data.prompts": "aa", "data.mixture=/d/more.jsonl": "bb"}
    models = {"/m/base": {"config.json": "c", "model.safetensors": "dd"}}
    html = data_section({"data": {"prompts": f"/d/{HOSTILE.replace('/', '')}"}}, inputs, models)
    assert "<script>" not in html and "/d/" not in html
    assert cells(html)[3:] == ["data.mixture", "more.jsonl", "bb", "model", "base", "dd"]
    assert "No digest stands beside this run" in data_section({}, {}, {})


def test_before_and_after_with_the_interval_of_the_change(tmp_path: Path) -> None:
    """Steps 1 and 30 of a journal whose eight prompts all have responses of rewards 0 to 3: means of 1.5 without
    spread. The win rate's interval is that of the rate less the half that an equal policy wins."""
    for step in (1, 30):
        write_step(tmp_path / JOURNAL_FOLDER, step, journal_rows(step))
    write_metrics(tmp_path / "dpo", "dpo", 30)
    stages = {
        "sft": {"gold_score": -0.25, "reward": 0.5},
        "dpo": {"gold_score": 1.0, "gold_gain_ci95": [1.0, 1.5], "win_rate": 0.75, "win_rate_ci95": [0.625, 0.875]},
        "ppo": {"retention": {"perplexity_before": 10.0, "perplexity_after": 12.0, "growth": 1.2}},
    }
    html = before_after_section({"stages": stages}, {"ppo": tmp_path}, read_metrics(tmp_path / "dpo"))
    rows = cells(html)
    assert [rows[start : start + 5] for start in range(0, len(rows), 5)] == [
        ["dpo", "gold score", "-0.250", "1.000", "1.250 [1.000, 1.500]"],
        ["dpo", "prompts won against what it began from", "50.0%", "75.0%", "25.0% [12.5%, 37.5%]"],
        ["ppo", "perplexity of text to retain", "10.000", "12.000", "x 1.200"],
        ["ppo", "reward of its responses", "1.500 [1.500, 1.500]", "1.500 [1.500, 1.500]", "0.000 [0.000, 0.000]"],
        # At step 10 and at step 30, as `write_metrics` has them.
        ["dpo", "held-out loss", "0.500", "0.300", "-0.200"],
    ]
    assert before_after_section({}, {}, []) == ""


def test_cost_and_how_to_make_it_again() -> None:
    records = [StepRecord("ppo", step, 2, {"num_tokens": 500.0 * step}, {}) for step in (1, 2)]
    energy = {"wh": 1.5, "carbon_g": 0.25, "estimated": ["memory"], "wh_per_1000_samples": 12.0}
    online = {"seconds": 61.0, "peak_memory_gib": 2.5, "energy": energy}
    summary = {"seconds_total": 90.0, "stages": {"ppo": online, "dpo": {"seconds": 1.0}, "data": {}}}
    html = cost_section(summary, {"machine": {"num_cpus": 4, "memory_gib": 15.5}}, records)
    counted = "1.5 Wh, 0.25 g CO2e (memory estimated)"
    assert cells(html)[:6] == ["ppo", "1 min 01 s", "2.50 GiB", "1,500", counted, "12 Wh"]
    assert cells(html)[6:] == ["dpo", "1.0 s", "missing"]
    assert "1 min 30 s in all · 4 CPUs · 15.5 GiB" in html
    again = reproduction_section({"seed": 3}, {"command": f"plumbob run x name={HOSTILE}", "time": "now"}, {})
    assert "plumbob run x name=&lt;script&gt;" in again and "<dt>seed</dt><dd>3</dd>" in again
    assert "<dt>commit</dt><dd>missing</dd>" in again and "missing: give the settings" in reproduction_section(
        {}, {}, {}
    )
    assert json.dumps(cost_section({}, {}, [])) == '""'
