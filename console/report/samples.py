"""Prompts with their responses side by side: of the evaluation, or of the journal of a stage that sampled."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from plumbob.console.tables import number
from plumbob.core.outside import from_outside
from plumbob.rollout.journal import JournalRow, read_step
from plumbob.rollout.journal_files import step_files

NUM_PROMPTS = 4
NUM_RESPONSES = 3
MAX_LETTERS = 4000
"""Of a prompt or a response; the rest is counted."""


def evaluation_samples(path: Path) -> str:
    """What every policy said to the same prompts."""
    samples = []
    for line_number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else [], start=1):
        with from_outside(f"{path}, line {line_number}: expected JSON, as a run writes it"):
            samples.append(dict(json.loads(line)))
    return "".join(
        _card(str(sample.get("prompt", "")), [_of_policy(*each) for each in sample.get("answers", {}).items()])
        for sample in samples
    )


def journal_samples(journal: Path) -> str:
    """What was sampled at the first step and at the last: a few prompts, with their best and their worst response."""
    steps = step_files(journal)
    sections = []
    for path in [steps[0], steps[-1]] if len(steps) > 1 else steps:
        with from_outside(f"{path}: expected a journal of rollouts", "put the file back, or delete it"):
            rows = read_step(path)
            step = int(path.stem.partition("-")[2])
            sections.append(f"<h3>Step {step}</h3>" + "".join(_of_group(group) for group in _groups(rows)))
    return "".join(sections)


def _groups(rows: Sequence[JournalRow]) -> list[list[JournalRow]]:
    """The responses to each of a few prompts, evenly spaced over the step's."""
    groups: dict[str, list[JournalRow]] = {}
    for row in rows:
        groups.setdefault(row.group_id, []).append(row)
    every = max(len(groups) // NUM_PROMPTS, 1)
    return list(groups.values())[::every][:NUM_PROMPTS]


def _of_group(rows: Sequence[JournalRow]) -> str:
    """The best response, the worst, and one in the middle."""
    ordered = sorted(rows, key=lambda row: -row.score)
    if len(ordered) > NUM_RESPONSES:
        ordered = [ordered[0], ordered[len(ordered) // 2], ordered[-1]]
    return _card(
        rows[0].prompt, [_response(f"reward {number(row.score)}", _facts(row), _transcript(row)) for row in ordered]
    )


def _facts(row: JournalRow) -> str:
    cut = ["cut at a limit"] if row.finish_reason == "length" else []
    turns = [] if row.episode is None else [f"{len(row.episode.turns)} turns"]
    failed = [] if row.episode is None or row.episode.failure is None else [f"failed: {row.episode.failure}"]
    return " · ".join([f"{int(row.action_mask.sum())} tokens", *turns, *cut, *failed])


def _transcript(row: JournalRow) -> str:
    """The response; of an episode turn by turn, with what each earned and what the environment answered."""
    if row.episode is None:
        return row.response
    lines = []
    for turn in row.episode.turns:
        earned = f" [reward {number(turn.reward)}]" if turn.reward else ""
        lines.append(f"policy: {turn.text.strip()}{earned}")
        lines += [f"{message['role']}: {message['content']}" for message in turn.messages]
    return "\n".join(lines)


def _of_policy(policy: str, response: Mapping[str, Any]) -> str:
    scores = [f"{name} {number(response[name])}" for name in ("reward", "gold") if number(response.get(name))]
    return _response(policy.upper(), " · ".join(scores), str(response.get("text", "")))


def _card(prompt: str, responses: Sequence[str]) -> str:
    return (
        f'<div class="sample"><div class="prompt" dir="auto">{_text(prompt)}</div>'
        f'<div class="responses">{"".join(responses)}</div></div>'
    )


def _response(title: str, facts: str, text: str) -> str:
    shown = _text(text) or '<span class="dim">(empty)</span>'
    label = f'<b>{escape(title)}</b> <span class="dim">{escape(facts)}</span>'
    return f'<div class="response">{label}<p dir="auto">{shown}</p></div>'


def _text(text: str) -> str:
    more = len(text) - MAX_LETTERS
    return escape(text[:MAX_LETTERS]) + (f' <span class="dim">and {more:,} letters more</span>' if more > 0 else "")
