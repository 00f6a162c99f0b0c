"""The report of a run: whole, self-contained, and safe with whatever the model wrote."""

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path

import pytest

from plumbob.console.metric_names import KNOWN
from plumbob.console.report.curves import charts_of, figure_of, thinned
from plumbob.console.report.page import write_report
from plumbob.core.errors import UserError
from plumbob.rollout.journal import JOURNAL_FOLDER, write_step
from plumbob.trainers.metrics.step_record import StepRecord
from plumbob.trainers.online.step_metrics import ExperienceStats, RoundMetrics, StepMetrics
from tests.support.finished_run import HOSTILE, finished_run, journal_rows, write_metrics

VOID = {"meta", "br"}


class Page(HTMLParser):
    """Collects text and addresses, and checks that tags are closed in the order that they were opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())


@pytest.mark.parametrize(("estimator", "shown"), [("gae", "ppo run"), ("grpo", "grpo run")])
def test_it_is_called_what_was_asked_for(tmp_path: Path, estimator: str, shown: str) -> None:
    config = {"name": "mine", "kind": "online", "seed": 3, "ppo": {"estimator": {"kind": estimator}}}
    (tmp_path / "resolved.json").write_text(json.dumps({"config": config}))
    assert f"{shown} · seed 3" in write_report(tmp_path).read_text()


def fake_run(folder: Path) -> Path:
    """A pipeline's folder with two stages of four steps, as a run would leave it."""
    folder.mkdir()
    config = {"name": "toy", "kind": "pipeline", "seed": 3}
    (folder / "resolved.json").write_text(json.dumps({"config": config, "packages": {"torch": "2.13"}}))
    stages = {
        "data": {"notes": ["12 rows skipped: <empty>"]},
        "pretrain": {"seconds": 40.0, "notes": []},
        "sft": {
            "gold_score": 0.125,
            "answer_tokens": 17.5,
            "seconds": 12.0,
            "notes": ["1 of 9 demonstrations dropped."],
        },
        "ppo": {
            **{"gold_score": 0.55, "win_rate": 0.71, "win_rate_ci95": [0.66, 0.76], "kl": 3.25},
            "monitors": [{"name": "kl", "step": 7, "message": "KL 9.00 is above 5"}],
        },
    }
    summary = {"name": "toy", "seconds_total": 301.0, "stages": stages}
    (folder / "summary.json").write_text(json.dumps(summary))
    for stage in ("ppo", "pretrain"):
        (folder / stage).mkdir()
        lines = [
            json.dumps({"stage": stage, "step": step, "num_steps": 8, "metrics": metrics, "seconds": {"learn": 1.5}})
            for step, metrics in enumerate([{"loss": 2.0}, {"loss": 1.0}, {"loss": None}, {"loss": 0.5}], start=1)
        ]
        (folder / stage / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    responses = {
        "sft": {"text": "No idea.", "reward": -1.25},
        "ppo": {"text": "<script>alert(1)</script>", "gold": 0.9},
    }
    (folder / "samples.jsonl").write_text(json.dumps({"prompt": "Who makes <b>it</b>?", "answers": responses}) + "\n")
    return folder


def test_the_report_shows_what_the_run_left(tmp_path: Path) -> None:
    path = write_report(fake_run(tmp_path / "toy"))
    assert path == tmp_path / "toy" / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    for text in ("pipeline run · seed 3 · 5 min 01 s in all", "71.0%", "[66.0%, 76.0%]"):
        assert text in page.texts
    for text in (
        "data: 12 rows skipped: <empty>",
        "sft: 1 of 9 demonstrations dropped.",
        "ppo, step 7: KL 9.00 is above 5",
        "response tokens",
        "17.500",
    ):
        assert text in page.texts
    assert "data" not in page.texts  # It has no row of figures.
    for text in ("SFT", "reward -1.250", "PPO", "gold 0.900", "learn 6.0 s", "(100%)", "4 of 8 steps"):
        assert text in page.texts
    assert page.tags.count("svg") == 2
    assert page.tags.count("figure") == 2
    # Stages in the summary's order, which is the order of the run, though "ppo" sorts first.
    shown = page.texts[: page.texts.index("Data")]
    assert [text for text in shown if text in ("ppo", "pretrain", "sft")][-2:] == ["pretrain", "ppo"]


def test_text_of_the_model_is_text_and_nothing_is_loaded_from_outside(tmp_path: Path) -> None:
    page = Page(write_report(fake_run(tmp_path / "toy")).read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert "b" in page.tags  # the policies' names; the prompt's own tag is text:
    assert "Who makes <b>it</b>?" in page.texts
    assert "<script>alert(1)</script>" in page.texts
    assert all(address.startswith("#") for address in page.addresses)


def test_a_run_that_has_only_begun_has_a_report(tmp_path: Path) -> None:
    (tmp_path / "resolved.json").write_text(json.dumps({"config": {"name": "mine", "kind": "sft", "seed": 0}}))
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "sft run · seed 0 · not finished" in page.texts
    assert "table" not in page.tags


def test_a_folder_that_is_no_run_and_a_spoilt_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this is no run"):
        write_report(tmp_path)
    run = fake_run(tmp_path / "toy")
    (run / "samples.jsonl").write_text('{"prompt": "a", "answers": {}}\n{"prompt": \n')
    with pytest.raises(UserError, match=r"samples\.jsonl, line 2: expected JSON"):
        write_report(run)
    assert not (run / "report.html").exists()


def test_the_best_known_curves_come_first_and_constant_absence_is_left_out() -> None:
    metrics = {"other": 1.0, "kl": 0.5, "once": float("nan"), "loss": 1.0, "alarm_kl": 1.0}
    records = [StepRecord("ppo", step, 2, metrics, {}) for step in (1, 2)]
    assert [chart.name.title for chart in charts_of(records)] == ["loss", "KL from the reference", "other"]


def test_held_out_figures_stand_in_the_chart_of_the_training_and_units_beside_the_title() -> None:
    steps = [{"loss": 2.0, "accuracy": 0.5}, {"loss": 1.0, "accuracy": 0.75, "heldout_loss": 1.5}]
    records = [StepRecord("sft", step, 2, metrics, {}) for step, metrics in enumerate(steps, start=1)]
    loss, accuracy = charts_of(records)
    assert loss.series == {"training": ((1.0, 2.0), (2.0, 1.0)), "held-out": ((2.0, 1.5),)}
    page = Page(figure_of(loss, "sft loss"))
    assert page.texts[:4] == ["loss", "nats per token", "training", "held-out"]
    page = Page(figure_of(accuracy, "sft accuracy"))
    assert page.texts[:2] == ["accuracy", "%"]
    assert "training" not in page.texts  # One curve needs no legend.
    assert any(text.endswith("%") and text[0].isdigit() for text in page.texts)


@pytest.mark.parametrize("num_steps", [2, 3, 5, 30, 1000])
def test_steps_are_whole_numbers(num_steps: int) -> None:
    records = [StepRecord("sft", step, num_steps, {"loss": 1.0 / step}, {}) for step in range(1, num_steps + 1)]
    svg = ElementTree.fromstring(svg_of(records))
    ticks = svg.findall(".//{*}g[@id='xtick']") or svg.findall(".//{*}text")
    texts = [text.text or "" for text in ticks]
    steps = texts[: texts.index("step")]
    assert len(steps) >= 2
    assert all(text.lstrip("\N{MINUS SIGN}").isdigit() for text in steps)


def test_every_metric_of_a_step_of_ppo_has_a_name() -> None:
    nothing = dict.fromkeys((field.name for field in fields(ExperienceStats)), 0.0)
    rounds = RoundMetrics(1, 0.0, 0)
    own = dict.fromkeys((field.name for field in fields(StepMetrics)), 0.0)
    step = StepMetrics(**own | {"experience": ExperienceStats(**nothing), "rounds": rounds, "objective": {}})
    assert [name for name in step.on_disk() if name not in KNOWN and not name.endswith("_grad_norm")] == []


def test_many_points_are_averaged_in_equal_groups() -> None:
    # 5 points, at most 3: groups of 2, the last of 1.
    points = ((1.0, 10.0), (2.0, 20.0), (3.0, 30.0), (4.0, 50.0), (5.0, 7.0))
    assert thinned(points, limit=3) == ((1.5, 15.0), (3.5, 40.0), (5.0, 7.0))
    assert thinned(points, limit=5) == points


def test_a_picture_is_one_well_formed_element_in_the_page_s_colour() -> None:
    records = [StepRecord("dpo", step, 3, {"loss": 1.0 / step}, {}) for step in (1, 2, 3)]
    picture = svg_of(records)
    svg = ElementTree.fromstring(picture)
    assert svg.tag.endswith("svg")
    assert (svg.get("width"), svg.get("height")) == (None, None)
    assert svg.get("viewBox")
    assert "currentColor" in picture
    assert "<style" not in picture  # Which would be one of the whole page.


def test_a_metric_with_a_hostile_name_is_text() -> None:
    records = [StepRecord("dpo", step, 2, {"<b>a": 1.0}, {}) for step in (1, 2)]
    (chart,) = charts_of(records)
    page = Page(figure_of(chart, "dpo"))
    assert page.texts[0] == "<b>a"


def svg_of(records: Sequence[StepRecord]) -> str:
    (chart,) = charts_of(records)
    figure = figure_of(chart, "a key")
    return figure[figure.index("<svg") : figure.index("</figure>")]


def test_a_run_of_one_stage_shows_responses_of_its_journal(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "lone", "ppo", {"train_kl": 2.5})
    write_metrics(run, "ppo", 2, {"reward": 1.0})
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "Responses that it learnt from" in page.texts
    assert [text for text in page.texts if text.startswith("Step ")][:2] == [
        "Step 1",
        "Step 1, question 0: what does the Tarnis run on?",
    ]
    assert "Step 30, question 6: what does the Tarnis run on?" in page.texts
    # Of four responses, with rewards 0 to 3, the best, the worst and one between.
    first = page.texts.index("Step 1, question 0: what does the Tarnis run on?")
    rewards = [text for text in page.texts[first:] if text.startswith("reward ")]
    assert rewards[:4] == ["reward 3.000", "reward 1.000", "reward 0.000", "reward 3.000"]
    assert HOSTILE in page.texts
    assert not {"script", "img"} & set(page.tags)


def test_a_pipeline_shows_them_on_demand(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "toy")
    write_step(run / "ppo" / JOURNAL_FOLDER, 1, journal_rows(1))
    text = write_report(run).read_text(encoding="utf-8")
    assert "<details><summary>Responses that it learnt from</summary><h3>Step 1</h3>" in text


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "toy")
    damaged = write_step(run / "ppo" / JOURNAL_FOLDER, 1, journal_rows(1))
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(UserError, match=r"step-000001\.parquet: cannot be read as Parquet"):
        write_report(run)


def test_the_table_has_its_titles_in_each_cell_for_narrow_pages(tmp_path: Path) -> None:
    text = write_report(fake_run(tmp_path / "toy")).read_text(encoding="utf-8")
    assert '<td data-title="win rate"><span>71.0% <span class="interval">[66.0%, 76.0%]</span></span></td>' in text
    assert '<td data-title="KL"></td>' in text


def test_the_bar_of_phases_has_a_legend(tmp_path: Path) -> None:
    text = write_report(finished_run(tmp_path / "sft", "sft", {}, num_steps=2)).read_text(encoding="utf-8")
    bar = text[text.index('<div class="bar">') : text.index("</section>", text.index('<div class="bar">'))]
    shown = dict(re.findall(r'<i style="background:(#\w+)"></i>(\w+)', bar))
    assert list(shown.values()) == ["data", "learn", "evaluate", "save"]
    assert list(shown) == re.findall(r'<span style="background:(#\w+);width', bar)


def test_long_texts_are_cut_and_half_letters_replaced(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "toy")
    answers = {"sft": {"text": "a" * 5000}, "ppo": {"text": "half \ud800"}}
    (run / "samples.jsonl").write_text(json.dumps({"prompt": "q", "answers": answers}) + "\n")
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "a" * 4000 in page.texts
    assert "and 1,000 letters more" in page.texts
    assert "half ?" in page.texts
