"""One self-contained `report.html` from a run's folder: the question, the answer, and how to get it again."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from plumbob.configs.resolved_copy import RESOLVED_FILE, config_of, configured_stage
from plumbob.console.report.before_after import before_after_section
from plumbob.console.report.curves import charts_of, figure_of
from plumbob.console.report.data_report_page import write_data_page
from plumbob.console.report.html_page import html_page, html_table
from plumbob.console.report.provenance import cost_section, data_section, question_section, reproduction_section
from plumbob.console.report.samples import evaluation_samples, journal_samples
from plumbob.console.report.style import PALETTE
from plumbob.console.tables import duration, summary_table
from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside, read_json_object
from plumbob.data.audit.data_report import REPORT_JSON
from plumbob.driver.run_folder.folder import INPUTS_FILE, MODELS_FILE, SAMPLES_FILE, SUMMARY_FILE
from plumbob.rollout.journal import JOURNAL_FOLDER
from plumbob.trainers.metrics.sinks.jsonl import METRICS_FILE, read_metrics
from plumbob.trainers.metrics.step_record import StepRecord

REPORT_FILE = "report.html"
NUM_CURVES_SHOWN = 6


@dataclass(frozen=True)
class _Stage:
    """A stage that left steps: its folder, and its records in order, at least one."""

    folder: Path
    records: Sequence[StepRecord]

    @property
    def name(self) -> str:
        return self.records[0].stage


def write_report(run_dir: Path) -> Path:
    """Write the report beside what it is made of, and give its path; UserError when the folder is no run."""
    with from_outside(f"{run_dir}: cannot be looked into"):
        if not (run_dir / RESOLVED_FILE).is_file():
            raise UserError(f"{run_dir}: this is no run: it has no {RESOLVED_FILE}")
    resolved = _read_json(run_dir / RESOLVED_FILE)
    summary, inputs, models = (_read_if_there(run_dir / name) for name in (SUMMARY_FILE, INPUTS_FILE, MODELS_FILE))
    with _made_of(run_dir / SUMMARY_FILE):
        result, findings = _summary_section(summary), _findings_section(summary.get("stages", {}))
        order = list(summary.get("stages", {}))
    stages = _read_stages(run_dir, order)
    records = [record for stage in stages for record in stage.records]
    with _made_of(run_dir / RESOLVED_FILE):
        config = config_of(resolved)
        title = f"{summary.get('name') or config.get('name') or run_dir.name}"
        heading = f"<h1>{escape(title)}</h1>{_lead(summary, config)}{question_section(config)}"
        reproduction = reproduction_section(config, resolved, inputs)
    with _made_of(run_dir / MODELS_FILE):
        data = data_section(config, inputs, models) + _data_report_link(run_dir)
    with _made_of(run_dir / SUMMARY_FILE):
        changed = before_after_section(summary, {stage.name: stage.folder for stage in stages}, records)
        cost = cost_section(summary, resolved, records)
    with _made_of(run_dir / SAMPLES_FILE):
        samples = evaluation_samples(run_dir / SAMPLES_FILE)
    shown = f"<h2>Responses side by side</h2>{samples}" if samples else ""
    curves = [_curves_of(stage, is_alone=stage.folder == run_dir) for stage in stages]
    body = [
        *(heading, result, changed, findings, shown),
        *curves,
        *(data, cost, reproduction, _settings_section(resolved)),
    ]
    page = html_page(title, [part for part in body if part])
    partial = run_dir / f"{REPORT_FILE}.partial"
    partial.write_text(page, encoding="utf-8", errors="replace")  # Half a letter, as JSON may hold, is none in UTF-8.
    return partial.replace(run_dir / REPORT_FILE)


# ------------------------------------------------------------------------------------------------------------- reading


def _made_of(path: Path) -> AbstractContextManager[None]:
    """Around what is made of a file of the run's folder, which may have been damaged since the run wrote it."""
    return from_outside(f"{path}: expected JSON, as a run writes it", "put the file back, or delete it")


def _read_json(path: Path) -> dict[str, Any]:
    return read_json_object(path, f"{path}: expected JSON, as a run writes it", "put the file back")


def _read_if_there(path: Path) -> dict[str, Any]:
    """Nothing where there is no such file: a run that is not finished, or an older one."""
    return _read_json(path) if path.exists() else {}


def _read_stages(run_dir: Path, order: Sequence[str]) -> list[_Stage]:
    """Those that left steps, in the order of the summary: a pipeline has a folder for each stage."""
    stages = []
    for file in sorted([*run_dir.glob(METRICS_FILE), *run_dir.glob(f"*/{METRICS_FILE}")]):
        with _made_of(file):
            records = read_metrics(file.parent)
        if records:
            stages.append(_Stage(file.parent, records))
    return sorted(stages, key=lambda stage: order.index(stage.name) if stage.name in order else len(order))


def _data_report_link(run_dir: Path) -> str:
    """To the page of what is in the run's data, which is written; nothing where the run keeps none."""
    if not (run_dir / REPORT_JSON).exists():
        return ""
    page = write_data_page(run_dir)
    return f'<p><a href="{page.name}">What is in the data</a>: duplicates, leaks, thin places, labels.</p>'


def _curves_of(stage: _Stage, is_alone: bool) -> str:
    with _made_of(stage.folder / METRICS_FILE):
        curves = _stage_section(stage.records)
    return curves + _journal_section(stage.folder, is_alone)


# ------------------------------------------------------------------------------------------------------------- sections


def _lead(summary: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    facts = [
        f"{configured_stage(config) or summary.get('kind', 'run')} run",
        f"seed {config.get('seed', summary.get('seed', 0))}",
    ]
    if "seconds_total" in summary:
        facts.append(f"{duration(summary['seconds_total'])} in all")
    if not summary:
        facts.append("not finished")
    return f'<p class="lead">{escape(" · ".join(facts))}</p>'


def _summary_section(summary: Mapping[str, Any]) -> str:
    heading, *rows = summary_table(summary)
    if not rows:
        return ""
    return f"<h2>Result</h2>{html_table(heading, rows)}"


def _stage_section(records: Sequence[StepRecord]) -> str:
    last = records[-1]
    figures = [figure_of(chart, f"{last.stage} {chart.name.title}") for chart in charts_of(records)]
    shown, more = figures[:NUM_CURVES_SHOWN], figures[NUM_CURVES_SHOWN:]
    parts = [f'<h2>{escape(last.stage)} <span class="dim">{last.step} of {last.num_steps} steps</span></h2>']
    if shown:
        parts.append(f'<div class="curves">{"".join(shown)}</div>')
    if more:
        hidden = f'<div class="curves">{"".join(more)}</div>'
        parts.append(f"<details><summary>{len(more)} more curves</summary>{hidden}</details>")
    return "".join(parts) + _phases(records)


def _phases(records: Sequence[StepRecord]) -> str:
    """Where the steps' seconds went, as one bar with its legend."""
    totals: dict[str, float] = {}
    for record in records:
        for phase, seconds in record.seconds.items():
            totals[phase] = totals.get(phase, 0.0) + (seconds if math.isfinite(seconds) else 0.0)
    whole = sum(totals.values())
    if whole <= 0:
        return ""
    colours = dict(zip(totals, itertools.cycle(PALETTE), strict=False))
    bars = [
        f'<span style="background:{colours[phase]};width:{100 * seconds / whole:.2f}%"></span>'
        for phase, seconds in totals.items()
    ]
    keys = [
        f'<span class="key"><i style="background:{colours[phase]}"></i>{escape(phase)} {duration(seconds)} '
        f'<span class="dim">({100 * seconds / whole:.0f}%)</span></span>'
        for phase, seconds in totals.items()
    ]
    return (
        f'<section><h3>Seconds per phase</h3><div class="bar">{"".join(bars)}</div>'
        f"<div>{' '.join(keys)}</div></section>"
    )


def _journal_section(folder: Path, is_alone: bool) -> str:
    """What a stage that sampled has in its journal; of a pipeline, which has an evaluation too, on demand."""
    samples = journal_samples(folder / JOURNAL_FOLDER)
    if not samples:
        return ""
    if is_alone:
        return f"<h2>Responses that it learnt from</h2>{samples}"
    return f"<details><summary>Responses that it learnt from</summary>{samples}</details>"


def _findings_section(stages: Mapping[str, Mapping[str, Any]]) -> str:
    notes = [f"{name}: {note}" for name, stage in stages.items() for note in stage.get("notes", [])]
    notes += [
        f"{name}, step {alarm['step']}: {alarm['message']}"
        for name, stage in stages.items()
        for alarm in stage.get("monitors", [])
    ]
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<h2>Findings</h2><ul>{items}</ul>" if items else ""


def _settings_section(resolved: Mapping[str, Any]) -> str:
    text = escape(json.dumps(resolved, indent=2, ensure_ascii=False))
    details = f"<details><summary>Configuration, packages, machine</summary><pre>{text}</pre></details>"
    return f'<section class="screen"><h2>Settings</h2>{details}</section>'
