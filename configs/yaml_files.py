"""Settings as a user writes them: YAML files with the lines of their keys, and overrides of the command line."""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from plumbob.configs.validation import describe
from plumbob.core.errors import UserError


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


def read_source(path: Path, label: str) -> Source:
    """Raises UserError when the file cannot be read or holds no settings. `label` is what the user calls it."""
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


def overridden(source: Source, overrides: Sequence[str]) -> Source:
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
