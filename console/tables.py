"""Metrics of a run as text and table rows, for the terminal and for the report alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from plumbob.console.metric_names import HELDOUT

if TYPE_CHECKING:
    from plumbob.trainers.metrics.step_record import StepRecord

Stage = Mapping[str, Any]


def number(value: object) -> str:
    """Three or four significant figures; nothing for what is not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"


def percent(value: object) -> str:
    return f"{100 * value:.1f}%" if isinstance(value, int | float) else ""


def duration(seconds: object) -> str:
    """Such as "41 s", "3 min 20 s", "2 h 05 min"."""
    if not isinstance(seconds, int | float):
        return ""
    if seconds < 9.95:
        return f"{seconds} s" if isinstance(seconds, int) else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(num_bytes: int) -> str:
    """Such as "812 B", "41.5 KiB", "1.2 GiB"."""
    value, unit = float(num_bytes), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"


def printable(text: str) -> str:
    """Without what would move a terminal's cursor or change its colours: names and rows come from outside."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)


def escaped(text: str) -> str:
    """With line ends, other control characters and backslashes as in Python's texts: answers come from outside."""
    return "".join(
        letter if letter.isprintable() and letter != "\\" else letter.encode("unicode_escape").decode()
        for letter in text
    )


def interval(bounds: object, form: Callable[[object], str]) -> str:
    match bounds:
        case [low, high]:
            return f"[{form(low)}, {form(high)}]"
        case _:
            return ""


def aligned(rows: list[list[str]]) -> list[str]:
    """Rows as lines of equal columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return lines


def _accuracy(stage: Stage) -> str:
    text = percent(stage.get("heldout_accuracy", stage.get("accuracy")))
    ceiling = percent(stage.get("noise_ceiling"))
    return f"{text} of {ceiling}" if text and ceiling else text


def _win_rate(stage: Stage) -> str:
    return f"{percent(stage.get('win_rate'))} {interval(stage.get('win_rate_ci95'), percent)}".strip()


def _training_reward(stage: Stage) -> str:
    """From the first step to the last, where nothing was measured on held-out prompts."""
    known = [number(stage.get(name)) for name in ("first_train_reward", "train_reward")]
    return "" if "reward" in stage or not all(known) else " to ".join(known)


def _teacher_kl(stage: Stage) -> str:
    """From the first step to the last."""
    known = [number(stage.get(name)) for name in ("first_teacher_kl", "teacher_kl")]
    return " to ".join(known) if all(known) else ""


def _retention(stage: Stage) -> str:
    measured = stage.get("retention", {})
    return " to ".join(number(measured[name]) for name in ("perplexity_before", "perplexity_after") if name in measured)


def _gigabytes(stage: Stage) -> str:
    memory = stage.get("peak_memory_gib")
    return f"{memory:.2f} GiB" if isinstance(memory, int | float) else ""


def _energy(stage: Stage) -> str:
    energy = stage.get("energy") or {}
    wh, is_estimated = energy.get("wh"), bool(energy.get("estimated"))
    return f"{wh:.3g} Wh{' est.' if is_estimated else ''}" if isinstance(wh, int | float) else ""


_COLUMNS: tuple[tuple[str, Callable[[Stage], str]], ...] = (
    ("held-out loss", lambda stage: number(stage.get("heldout_loss"))),
    ("accuracy", _accuracy),
    ("gold score", lambda stage: number(stage.get("gold_score"))),
    ("gold gain 95%", lambda stage: interval(stage.get("gold_gain_ci95"), number)),
    ("reward", lambda stage: number(stage.get("reward"))),
    ("training reward", _training_reward),
    ("win rate", _win_rate),
    ("response tokens", lambda stage: number(stage.get("answer_tokens"))),
    ("KL", lambda stage: number(stage.get("kl"))),
    ("training KL", lambda stage: "" if "kl" in stage else number(stage.get("train_kl"))),
    ("teacher KL", _teacher_kl),
    ("retained perplexity", _retention),
    ("sampler gap", lambda stage: number(stage.get("max_sampler_gap"))),
    ("time", lambda stage: duration(stage.get("seconds"))),
    ("memory", _gigabytes),
    ("energy", _energy),
)


def stage_metrics(stage: Stage) -> dict[str, str]:
    """Title -> metric, of those that a stage's summary has."""
    cells = {title: cell(stage) for title, cell in _COLUMNS}
    return {title: cell for title, cell in cells.items() if cell}


def ended_line(stage: str, elapsed_s: float, summary: Stage) -> str:
    """A sentence for a stage that has ended, with what it came to."""
    metrics = {title: text for title, text in stage_metrics(summary).items() if title != "time"}
    return ", ".join([f"{stage}: done in {duration(elapsed_s)}", *(" ".join(pair) for pair in metrics.items())])


def summary_table(summary: Mapping[str, Any]) -> list[list[str]]:
    """A heading and one row per stage; a column that no stage has, and a stage without metrics, are left out."""
    stages = {name: stage_metrics(stage) for name, stage in summary.get("stages", {}).items()}
    rows = {name: row for name, row in stages.items() if row}
    titles = [title for title, _ in _COLUMNS if any(title in row for row in rows.values())]
    return [["stage", *titles], *([name, *(row.get(title, "") for title in titles)] for name, row in rows.items())]


_STEP: tuple[tuple[str, Callable[[Mapping[str, float]], str]], ...] = (
    ("loss", lambda metrics: f"loss {number(metrics['loss'])}"),
    ("accuracy", lambda metrics: f"accuracy {percent(metrics['accuracy'])}"),
    ("margin", lambda metrics: f"margin {number(metrics['margin'])}"),
    ("reward", lambda metrics: f"reward {_with_spread(metrics['reward'], metrics.get('reward_std'))}"),
    ("teacher_kl", lambda metrics: f"teacher KL {number(metrics['teacher_kl'])}"),
    ("kl", lambda metrics: f"KL {number(metrics['kl'])}"),
    ("entropy", lambda metrics: f"entropy {number(metrics['entropy'])}"),
    ("answer_tokens_mean", lambda metrics: f"{metrics['answer_tokens_mean']:.1f} tokens"),
    ("sampler_gap_max", lambda metrics: f"gap {number(metrics['sampler_gap_max'])}"),
    ("tokens_per_s", lambda metrics: f"{metrics['tokens_per_s']:,.0f} tok/s"),
)


def step_metrics(record: StepRecord) -> list[str]:
    """What a display shows of one step, the most telling first."""
    return [shown(record.metrics) for name, shown in _STEP if name in record.metrics]


def heldout_metrics(record: StepRecord) -> list[str]:
    """What a display shows of held-out records; nothing of a step after which they were not measured."""
    metrics = {name.removeprefix(HELDOUT): value for name, value in record.metrics.items() if name.startswith(HELDOUT)}
    return [f"held-out {shown(metrics)}" for name, shown in _STEP if name in metrics]


def _with_spread(mean: float, spread: float | None) -> str:
    return number(mean) if spread is None else f"{number(mean)} ± {number(spread)}"
