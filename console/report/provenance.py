"""What a report says around its numbers: the question, the data, the cost, and how to make the run again."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from plumbob.console.report.html_page import html_table
from plumbob.console.tables import duration, number
from plumbob.trainers.metrics.energy_use import energy_words
from plumbob.trainers.metrics.step_record import StepRecord

MISSING = "missing"
"""What the run's files do not say is called so, and not left out."""

QUESTIONS: Mapping[str, str] = {
    "pretrain": "How well does {model} learn the text of {data}?",
    "pretrain-encoder": "How well does {model} learn to guess hidden words of {data}?",
    "sft": "How well does {model} learn to answer as {data} does?",
    "reward": "How well does {model} learn which responses people prefer in {data}?",
    "dpo": "Does {model} come to prefer the chosen responses of {data}?",
    "kto": "Does {model} come to write as the good responses of {data}, and not as the bad ones?",
    "online": "Does {model} earn more of {reward} on {data}, and how far does it move for that?",
    "pipeline": "Does what people prefer make {model} better, and which way does it best?",
    "eval": "How good is {model}?",
}
"""Kind of run -> what it is to find out."""


def question_section(config: Mapping[str, Any]) -> str:
    """One sentence, of the settings."""
    asked = QUESTIONS.get(str(config.get("kind")))
    if asked is None:
        return ""
    names = {"model": _model(config), "data": _main_data(config), "reward": _reward(config)}
    return f'<p class="question">{escape(asked.format(**names))}</p>'


def _model(config: Mapping[str, Any]) -> str:
    section = config.get("policy") or config.get("reward") or {}
    model = section.get("model") if isinstance(section, Mapping) else None
    if isinstance(model, str):
        path = Path(model)
        return path.parent.name if path.name == "policy" and path.parent.name else path.name
    return "a model made from scratch"


def _main_data(config: Mapping[str, Any]) -> str:
    data = config.get("data")
    files = [value for value in (data.values() if isinstance(data, Mapping) else ()) if isinstance(value, str)]
    named = [Path(value).name for value in files if "." in Path(value).name]
    return named[0] if named else "its data"


def _reward(config: Mapping[str, Any]) -> str:
    reward = config.get("reward")
    if not isinstance(reward, Mapping):
        return "what its teachers grade"
    parts = [
        str(part.get("name") or part.get("kind")) for part in reward.get("parts") or () if isinstance(part, Mapping)
    ]
    model = reward.get("model")
    return ", ".join(parts) or (f"the reward model {_model({'policy': {'model': model}})}" if model else "its reward")


def data_section(config: Mapping[str, Any], inputs: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    """Which files were read and which models, by digest: another reader knows the same ones by it."""
    rows = []
    for key, digest in inputs.items():
        setting, _, file = key.partition("=")
        rows.append([setting, Path(file or str(_value(config, setting) or MISSING)).name, str(digest)])
    for model, files in models.items():
        weights = [str(digest) for name, digest in files.items() if name.endswith(".safetensors")] or [MISSING]
        rows.append(["model", Path(str(model)).name, ", ".join(weights)])
    if not rows:
        return (
            "<h2>Data</h2><p>No digest stands beside this run: it made its data from the seed, or is an older one.</p>"
        )
    return f"<h2>Data</h2>{html_table(['setting', 'file', 'digest of the rows, or weights'], rows)}"


def _value(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def cost_section(summary: Mapping[str, Any], resolved: Mapping[str, Any], records: Sequence[StepRecord]) -> str:
    """What it took: time and memory by stage, tokens, and the machine."""
    stages = summary.get("stages", {})
    rows = [
        [
            str(name),
            duration(stage.get("seconds")),
            _gib(stage.get("peak_memory_gib")),
            _tokens(str(name), records),
            energy_words(stage.get("energy")) or MISSING,
            _per_thousand(stage.get("energy")),
        ]
        for name, stage in stages.items()
        if isinstance(stage, Mapping) and "seconds" in stage
    ]
    if not rows:
        return ""
    machine = resolved.get("machine", {})
    total = duration(summary.get("seconds_total")) or MISSING
    facts = [f"{total} in all", f"{machine.get('num_cpus', MISSING)} CPUs", f"{machine.get('memory_gib', MISSING)} GiB"]
    titles = ["stage", "time", "peak memory", "tokens learnt from", "energy of the host", "a thousand samples"]
    table = html_table(titles, rows)
    return f'<h2>Cost</h2><p class="dim">{escape(" · ".join(facts))}</p>{table}'


def _per_thousand(energy: object) -> str:
    per = energy.get("wh_per_1000_samples") if isinstance(energy, Mapping) else None
    return f"{per:.3g} Wh" if isinstance(per, int | float) else ""


def _tokens(stage: str, records: Sequence[StepRecord]) -> str:
    counts = [
        record.metrics["num_tokens"] for record in records if record.stage == stage and "num_tokens" in record.metrics
    ]
    return number(int(sum(counts))) if counts else ""


def _gib(value: object) -> str:
    return f"{value:.2f} GiB" if isinstance(value, int | float) else ""


def reproduction_section(config: Mapping[str, Any], resolved: Mapping[str, Any], inputs: Mapping[str, Any]) -> str:
    """The command line, the seed, and the versions; the settings stand whole at the page's end."""
    packages, machine = resolved.get("packages", {}), resolved.get("machine", {})
    command = resolved.get("command") or f"{MISSING}: give the settings below as YAML to plumbob run"
    rows = [
        ["command", str(command)],
        ["seed", str(config.get("seed", MISSING))],
        ["began", str(resolved.get("time", MISSING))],
        ["commit", str(resolved.get("git_commit") or MISSING)],
        ["versions", ", ".join(f"{name} {version}" for name, version in packages.items()) or MISSING],
        ["machine", f"{machine.get('platform', MISSING)}, Python {machine.get('python', MISSING)}"],
        ["inputs", ", ".join(f"{key} {digest}" for key, digest in inputs.items()) or MISSING],
    ]
    resumed = resolved.get("resumed", ())
    rows += [["resumed", f"{len(resumed)} times; what changed stands in the settings"]] if resumed else []
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rows)
    return f'<h2>How to make it again</h2><dl class="facts">{lines}</dl>'
