"""The page of a model on a hub (`model_card`): README.md with its YAML header, of what the run's files say."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from plumbob.configs.settings.tuning.adapters import BottleneckTuning
from plumbob.driver.result.lineage import LINEAGE_FILE
from plumbob.driver.result.places import shown_settings
from plumbob.driver.result.usage_guidelines import SECTIONS, USAGE_FILE, missing_sections
from plumbob.driver.run_folder.made_adapter import RunRecord, data_of
from plumbob.trainers.metrics.energy_use import energy_words

MISSING = "missing"
"""What nobody knows is called so, in words, so that it is not taken for forgotten."""

NO_METRICS = ("notes", "monitors", "policies", "seconds", "peak_memory_gib", "energy")
"""Of a stage's summary, what is no metric of the model or stands elsewhere on the page."""


@dataclass(frozen=True)
class CardSubject:
    """What a page is about.

    Attributes:
        name: its title.
        base: hub name of the base; None where it is not on a hub, or is not known.
        base_digest: of its config and weights.
        kind: such as "LORA of rank 8 on its base" or "full model".
        peft_type: of an adapter, as PEFT calls it; None of a full model.
        has_template: whether its tokenizer has a chat template.
        run: None where no run says how it was made.
        usage: the usage guidelines that go with it.
    """

    name: str
    base: str | None
    base_digest: str | None
    kind: str
    peft_type: str | None
    has_template: bool
    run: RunRecord | None
    usage: str


def model_card(subject: CardSubject) -> str:
    """Markdown, with no path of the machine on which it was made, and no address of another."""
    header = yaml.safe_dump(_header(subject), sort_keys=False)
    trained = "" if subject.run is None else f", trained by Plumbob ({subject.run.stage})"
    sections = [
        f"# {subject.name}",
        f"A language model ({subject.kind}){trained}.",
        _facts(subject),
        _metrics(subject.run),
        _use(subject),
        _guidelines(subject.usage),
        _reproduction(subject.run),
        _unknown(subject),
    ]
    return f"---\n{header}---\n\n" + "\n\n".join(section for section in sections if section) + "\n"


def _header(subject: CardSubject) -> dict[str, Any]:
    stage = [] if subject.run is None else [subject.run.stage]
    method = [] if subject.peft_type is None else [subject.peft_type.lower()]
    based = {} if subject.base is None else {"base_model": subject.base}
    return {
        "library_name": "transformers" if subject.peft_type is None else "peft",
        **based,
        "pipeline_tag": "text-generation",
        "tags": list(dict.fromkeys(["plumbob", *stage, *method])),
    }


def _facts(subject: CardSubject) -> str:
    run = subject.run
    machine = {} if run is None else run.resolved.get("machine", {})
    packages = {} if run is None else run.resolved.get("packages", {})
    named = ", ".join(
        f"{name} {packages[name]}" for name in ("plumbob", "torch", "transformers", "peft") if name in packages
    )
    on = ", ".join(str(machine[key]) for key in ("platform",) if key in machine)
    cpus = f", {machine['num_cpus']} CPUs" if "num_cpus" in machine else ""
    rows = {
        **_origin(subject),
        "stage": MISSING if run is None else run.stage,
        "run": MISSING if run is None else run.folder.name,
        "trained": (run.resolved.get("time") if run else None) or MISSING,
        "seed": MISSING if run is None else str(run.config.get("seed", MISSING)),
        "data": _data(run) or MISSING,
        "seconds": _number(run.summary.get("seconds")) if run and "seconds" in run.summary else MISSING,
        "energy": (energy_words(run.summary.get("energy")) if run else "") or MISSING,
        "versions": named or MISSING,
        "machine": f"{on}{cpus}" if on else MISSING,
        "licence": f"{MISSING}: that of the base and of the data decide",
    }
    return _table(("fact", ""), list(rows.items()))


def _origin(subject: CardSubject) -> dict[str, str]:
    """Of an adapter, also a merged one, its base; of a full model what its run began from."""
    if subject.base_digest is not None or subject.base is not None or subject.peft_type is not None:
        base = f"`{subject.base}`" if subject.base else f"{MISSING}: it is in a folder, not on a hub"
        return {"base": base, "base's digest": subject.base_digest or MISSING}
    began = None if subject.run is None else subject.run.config.get("policy", {}).get("model")
    if isinstance(began, str):
        return {"began from": _code(Path(began).name)}
    return {"began from": MISSING if began is None else "random weights"}


def _data(run: RunRecord | None) -> str:
    if run is None:
        return ""
    return "; ".join(
        f"{key.partition('=')[0]}: {_code(Path(each.file).name) if each.file else MISSING}, digest {each.digest}"
        for key, each in data_of(run).items()
    )


def _metrics(run: RunRecord | None) -> str:
    """The numbers of the stage, with the intervals that it has."""
    if run is None:
        return ""
    rows = []
    for name, value in _flat(run.summary):
        if name.endswith("_ci95") or name.partition(".")[0] in NO_METRICS:
            continue
        ends = dict(_flat(run.summary)).get(f"{name}_ci95", ())
        shown = " to ".join(map(_number, ends))
        rows.append((_code(name), _number(value), shown))
    return f"## Metrics\n\n{_table(('metric', 'value', '95% interval'), rows)}" if rows else ""


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Numbers, and pairs of them, by dotted names."""
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}.")
        elif _is_interval(value) or (isinstance(value, int | float) and not isinstance(value, bool)):
            found.append((f"{prefix}{name}", value))
    return found


def _is_interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(each, int | float) for each in value)


def _use(subject: CardSubject) -> str:
    chat = "plumbob chat FOLDER        # in a terminal\nplumbob serve FOLDER       # OpenAI's API, by vLLM"
    if subject.peft_type == BottleneckTuning.peft_type:
        lines = "PEFT itself has no adapters of this kind; Plumbob has."
    else:
        name, imports = "AutoModelForCausalLM", "from transformers import AutoModelForCausalLM, AutoTokenizer"
        if subject.peft_type:
            name = "AutoPeftModelForCausalLM"
            imports = f"from peft import {name}\nfrom transformers import AutoTokenizer"
        lines = (
            f"```python\n{imports}\n\n"
            f'model = {name}.from_pretrained("FOLDER-OR-NAME")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("FOLDER-OR-NAME")\n```'
        )
    return f"## Use\n\n{lines}\n\n```\n{chat}\n```"


def _guidelines(usage: str) -> str:
    missing = missing_sections(usage)
    page = f"[{USAGE_FILE}]({USAGE_FILE}) says what it is for, and what not." if len(missing) < len(SECTIONS) else ""
    rest = f"{MISSING.capitalize()}: {', '.join(missing).lower()}." if missing else ""
    return f"## Usage guidelines\n\n{page} {rest}".rstrip()


def _reproduction(run: RunRecord | None) -> str:
    if run is None:
        return ""
    settings = yaml.safe_dump(shown_settings(run.config), sort_keys=False, allow_unicode=True).rstrip()
    fence = "`" * (max(map(len, re.findall(r"`+", settings)), default=2) + 1)
    return (
        f"## How it was made\n\nThe run's settings, without those of cluster, storage, sinks and energy; `plumbob run "
        f"settings.yaml` makes it anew, with files of the same digests in their places; {LINEAGE_FILE} has "
        f"each stage before it too, the versions of all packages, and who decided what:\n\n"
        f"{fence}yaml\n{settings}\n{fence}"
    )


def _unknown(subject: CardSubject) -> str:
    """What a reader should ask for."""
    unknown = ["the licence", "languages", *(["usage guidelines"] if missing_sections(subject.usage) else [])]
    unknown += ["the base's name on a hub"] if subject.base is None and subject.peft_type else []
    unknown += ["how it was trained: no run's files stood beside it"] if subject.run is None else []
    unknown += ["metrics"] if not _metrics(subject.run) else []
    unknown += ["a chat template"] if not subject.has_template else []
    return f"## Missing\n\n{'; '.join(unknown)}."


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _code(text: str) -> str:
    return f"`{text.replace('`', chr(39))}`"


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
