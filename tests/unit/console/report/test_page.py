"""The report of a run: whole, self-contained, and safe with whatever the model wrote."""

import json
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest

from plumbob.console.report.curves import curve_names, draw_curves, thinned
from plumbob.console.report.page import write_report
from plumbob.core.errors import UserError
from plumbob.trainers.metrics.step_record import StepRecord

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
    config = {"name": "mine", "kind": "ppo", "seed": 3, "ppo": {"estimator": {"kind": estimator}}}
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
    for text in ("pipeline run · seed 3 · 5 min 01 s in all", "71.0% [66.0%, 76.0%]"):
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
    for text in ("SFT", "reward -1.250", "PPO", "gold 0.900", "learn 6.0 s (100%)", "4 of 8 steps"):
        assert text in page.texts
    assert page.tags.count("svg") == 2
    # Stages in the summary's order, which is the order of the run, though "ppo" sorts first.
    assert [text for text in page.texts if text in ("ppo", "pretrain", "sft")][-2:] == ["pretrain", "ppo"]


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
    metrics = {"other": 1.0, "kl": 0.5, "once": float("nan"), "loss": 1.0}
    records = [StepRecord("ppo", step, 2, metrics, {}) for step in (1, 2)]
    assert curve_names(records) == ["loss", "kl", "other"]


def test_many_points_are_averaged_in_equal_groups() -> None:
    # 5 points, at most 3: groups of 2, the last of 1.
    points = [(1.0, 10.0), (2.0, 20.0), (3.0, 30.0), (4.0, 50.0), (5.0, 7.0)]
    assert thinned(points, limit=3) == [(1.5, 15.0), (3.5, 40.0), (5.0, 7.0)]
    assert thinned(points, limit=5) == points


def test_a_picture_is_one_well_formed_element_in_the_page_s_colour() -> None:
    records = [StepRecord("dpo", step, 3, {"loss": 1.0 / step, "a<b": 2.0}, {}) for step in (1, 2, 3)]
    svg = ElementTree.fromstring(draw_curves(records, ["loss", "a<b"]))
    assert svg.tag.endswith("svg")
    assert (svg.get("width"), svg.get("height")) == ("100%", None)
    texts = {text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {"loss", "a<b"} <= texts
    assert "currentColor" in draw_curves(records, ["loss"])
