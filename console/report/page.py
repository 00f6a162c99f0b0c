"""One self-contained `report.html` from what lies in a run's folder: metrics, samples, curves, settings."""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from html import escape
from pathlib import Path
from typing import Any

from plumbob.configs.resolved_copy import RESOLVED_FILE
from plumbob.console.report.curves import curve_names, draw_curves
from plumbob.console.tables import duration, number, summary_table
from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside, read_json_object
from plumbob.driver.run_folder.folder import SAMPLES_FILE, SUMMARY_FILE
from plumbob.trainers.metrics.sinks.jsonl import METRICS_FILE, read_metrics
from plumbob.trainers.metrics.step_record import StepRecord

REPORT_FILE = "report.html"
NUM_CURVES_SHOWN = 6

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881;
  --dim: color-mix(in srgb, currentColor 62%, transparent); }
body { font: 15px/1.55 system-ui, sans-serif; max-width: 66rem; margin: 2.5rem auto; padding: 0 1.2rem;
  color: light-dark(#1c2126, #d9dee3); background: light-dark(#fff, #14181c); }
h1 { font-size: 1.7rem; margin: 0 } h2 { font-size: 1.2rem; margin: 2.6rem 0 .7rem }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem }
p.lead, .dim { color: var(--dim) } .scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th, td { padding: .4rem .7rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; font-variant-numeric: tabular-nums }
th:first-child, td:first-child { text-align: left } th { font-weight: 600 }
.sample { border: 1px solid var(--line); border-radius: 8px; margin: 1rem 0; overflow: hidden }
.prompt { background: var(--soft); padding: .6rem .9rem; white-space: pre-wrap; overflow-wrap: anywhere }
.responses { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)) }
.response { padding: .6rem .9rem; border-top: 1px solid var(--line) }
.response + .response { border-left: 1px solid var(--line) }
.response p { margin: .2rem 0; white-space: pre-wrap; overflow-wrap: anywhere }
.bar { display: flex; height: .8rem; border-radius: 4px; overflow: hidden } .bar span { background: #2f81c4 }
.bar span:nth-child(even) { background: #86b6de } svg { height: auto; font-family: system-ui, sans-serif }
summary { cursor: pointer } pre { background: var(--soft); padding: .9rem; border-radius: 8px; overflow-x: auto }
"""


def write_report(run_dir: Path) -> Path:
    """Write the report beside what it is made of, and give its path; UserError when the folder is no run."""
    with from_outside(f"{run_dir}: cannot be looked into"):
        if not (run_dir / RESOLVED_FILE).is_file():
            raise UserError(f"{run_dir}: this is no run: it has no {RESOLVED_FILE}")
        has_summary = (run_dir / SUMMARY_FILE).exists()
    resolved = _read_json(run_dir / RESOLVED_FILE)
    summary = _read_json(run_dir / SUMMARY_FILE) if has_summary else {}
    with _made_of(run_dir / SUMMARY_FILE):
        results = [_summary_section(summary), _notes_section(summary.get("stages", {}))]
        order = list(summary.get("stages", {}))
    with _made_of(run_dir / RESOLVED_FILE):
        config = resolved.get("config", {})
        title = f"{summary.get('name') or config.get('name') or run_dir.name}"
        heading = f"<h1>{escape(title)}</h1>{_lead(summary, config)}"
    with _made_of(run_dir / SAMPLES_FILE):
        samples = _samples_section(_read_samples(run_dir / SAMPLES_FILE))
    stages = _stage_sections(run_dir, order)
    body = [heading, results[0], samples, *stages, results[1], _settings_section(resolved)]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )
    partial = run_dir / f"{REPORT_FILE}.partial"
    partial.write_text(page, encoding="utf-8")
    return partial.replace(run_dir / REPORT_FILE)


# ------------------------------------------------------------------------------------------------------------- reading


def _made_of(path: Path) -> AbstractContextManager[None]:
    """Around what is made of a file of the run's folder, which may have been damaged since the run wrote it."""
    return from_outside(f"{path}: expected JSON, as a run writes it", "put the file back, or delete it")


def _read_json(path: Path) -> dict[str, Any]:
    return read_json_object(path, f"{path}: expected JSON, as a run writes it", "put the file back")


def _read_samples(path: Path) -> list[dict[str, Any]]:
    samples = []
    for number_, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else [], start=1):
        with from_outside(f"{path}, line {number_}: expected JSON, as a run writes it"):
            samples.append(dict(json.loads(line)))
    return samples


def _stage_sections(run_dir: Path, order: Sequence[str]) -> list[str]:
    """Of each stage that left steps, in the order of the summary: a pipeline has a folder for each stage."""
    files = sorted([*run_dir.glob(METRICS_FILE), *run_dir.glob(f"*/{METRICS_FILE}")])
    sections: list[tuple[int, str]] = []
    for file in files:
        with _made_of(file):
            records = read_metrics(file.parent)
            if records:
                stage = records[0].stage
                sections.append((order.index(stage) if stage in order else len(order), _stage_section(records)))
    return [section for _, section in sorted(sections, key=lambda placed: placed[0])]


# ------------------------------------------------------------------------------------------------------------- sections


def _lead(summary: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    facts = [
        f"{_kind(config) or summary.get('kind', 'run')} run",
        f"seed {config.get('seed', summary.get('seed', 0))}",
    ]
    if "seconds_total" in summary:
        facts.append(f"{duration(summary['seconds_total'])} in all")
    if not summary:
        facts.append("not finished")
    return f'<p class="lead">{escape(" · ".join(facts))}</p>'


def _kind(config: Mapping[str, Any]) -> str | None:
    """What was asked for: of policy gradients the algorithm, as the estimator is called."""
    kind: str | None = config.get("kind")
    estimator = config["ppo"]["estimator"]["kind"] if kind == "ppo" and "ppo" in config else None
    return estimator if estimator not in (None, "gae") else kind


def _summary_section(summary: Mapping[str, Any]) -> str:
    heading, *rows = summary_table(summary)
    if not rows:
        return ""
    head = "".join(f"<th>{escape(title)}</th>" for title in heading)
    lines = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return f'<h2>Result</h2><div class="scroll"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def _samples_section(samples: Sequence[Mapping[str, Any]]) -> str:
    if not samples:
        return ""
    cards = []
    for sample in samples:
        responses = "".join(_response(policy, response) for policy, response in sample.get("answers", {}).items())
        prompt = escape(str(sample.get("prompt", "")))
        cards.append(
            f'<div class="sample"><div class="prompt">{prompt}</div><div class="responses">{responses}</div></div>'
        )
    return "<h2>Responses side by side</h2>" + "".join(cards)


def _response(policy: str, response: Mapping[str, Any]) -> str:
    scores = [f"{name} {number(response[name])}" for name in ("reward", "gold") if number(response.get(name))]
    text = escape(str(response.get("text", ""))) or '<span class="dim">(empty)</span>'
    label = f'<b>{escape(policy.upper())}</b> <span class="dim">{escape(" · ".join(scores))}</span>'
    return f'<div class="response">{label}<p>{text}</p></div>'


def _stage_section(records: Sequence[StepRecord]) -> str:
    last = records[-1]
    names = curve_names(records)
    shown, more = names[:NUM_CURVES_SHOWN], names[NUM_CURVES_SHOWN:]
    parts = [f'<h2>{escape(last.stage)} <span class="dim">{last.step} of {last.num_steps} steps</span></h2>']
    if shown:
        parts.append(draw_curves(records, shown))
    if more:
        parts.append(f"<details><summary>{len(more)} more curves</summary>{draw_curves(records, more)}</details>")
    return "".join(parts) + _phases(records)


def _phases(records: Sequence[StepRecord]) -> str:
    """Where the stage's seconds went, as one bar."""
    totals: dict[str, float] = {}
    for record in records:
        for phase, seconds in record.seconds.items():
            totals[phase] = totals.get(phase, 0.0) + (seconds if math.isfinite(seconds) else 0.0)
    whole = sum(totals.values())
    if whole <= 0:
        return ""
    bars = "".join(f'<span style="width:{100 * seconds / whole:.2f}%"></span>' for seconds in totals.values())
    words = [f"{phase} {duration(seconds)} ({100 * seconds / whole:.0f}%)" for phase, seconds in totals.items()]
    return f'<h3>Seconds per phase</h3><div class="bar">{bars}</div><p class="dim">{escape(" · ".join(words))}</p>'


def _notes_section(stages: Mapping[str, Mapping[str, Any]]) -> str:
    notes = [f"{name}: {note}" for name, stage in stages.items() for note in stage.get("notes", [])]
    notes += [
        f"{name}, step {alarm['step']}: {alarm['message']}"
        for name, stage in stages.items()
        for alarm in stage.get("monitors", [])
    ]
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<h2>Notes</h2><ul>{items}</ul>" if items else ""


def _settings_section(resolved: Mapping[str, Any]) -> str:
    text = escape(json.dumps(resolved, indent=2, ensure_ascii=False))
    return f"<h2>Settings</h2><details><summary>Configuration, packages, machine</summary><pre>{text}</pre></details>"
