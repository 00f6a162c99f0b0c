"""Settings as a user writes them: YAML files with the lines of their keys, and overrides of the command line."""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from plumbob.configs.validation import describe, shortened
from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside

MAX_BYTES = 2**20
MAX_NODES = 10_000
"""Keys and values of a file, each alias counted as often as it is used: a hundred times what a run has."""

MAX_DEPTH = 32


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

    def line_of(self, key: str) -> int | None:
        """Of the key, or of the list that it is in an element of; None where neither was written."""
        parts = key.split(".")
        lists = (".".join(parts[:number]) for number, part in enumerate(parts) if part.isdecimal())
        return next((self.lines[name] for name in (key, *lists) if name in self.lines), None)


CORE = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}
"""What is no text without quotes: the core schema of YAML 1.2 (section 10.3.2), without numbers that begin with 0."""

IN_DISPUTE = (
    r"[-+]?0[0-9_]+|[-+]?0b[01_]+|[-+]?0x[0-9a-fA-F_]+|[-+]?[0-9][0-9_]*((:[0-5]?[0-9])*(\.[0-9_]*)?|[eE][-+]?[0-9]+)"
)
"""Numbers of YAML 1.1 that YAML 1.2 reads as text, or as another number: 010 (8), 1:30 (90), 1_000, 0b11."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema, in which a key stands once: 1e-4 is a number, and 2026-01-01, off and << are text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _refused(f"the key {key} is not text", key_node)
            if key in seen:
                raise _refused(f"the key {key} twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_core(self, node: yaml.ScalarNode) -> Any:
        """What the text is in YAML 1.2, also where its tag was written: !!int 1:30 is none."""
        text, name = node.value, node.tag.rpartition(":")[2]
        if not re.fullmatch("|".join(CORE[each][0] for each in {name, "int" if name == "float" else name}), text):
            raise _refused(f"{shortened(text)} is no {name}", node)
        match name:
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                return int(text, 0)
            case _:
                return float(text.replace(".", "") if text[-1] in "fFnN" else text)

    def refuse_dispute(self, node: yaml.ScalarNode) -> Any:
        found = shortened(node.value)
        raise _refused(f"YAML's versions read {found} in different ways; write plain digits, or text in quotes", node)


def _refused(problem: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_Loader.yaml_implicit_resolvers = {}
_Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in ("str", "seq", "map")
}
for _name, (_pattern, _first) in CORE.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})$"), _first)
    _Loader.add_constructor(f"tag:yaml.org,2002:{_name}", _Loader.construct_core)
_Loader.add_implicit_resolver("!in-dispute", re.compile(rf"(?:{IN_DISPUTE})$"), list("-+0123456789"))
_Loader.add_constructor("!in-dispute", _Loader.refuse_dispute)


def read_source(path: Path, label: str) -> Source:
    """Raises UserError when the file cannot be read or holds no settings. `label` is what the user calls it."""
    try:
        with from_outside(f"{label}: cannot be read as YAML text"):
            values, node = _read(_text_of(path))
    except UserError as error:
        raise _with_line(label, error) from error
    if not isinstance(values, dict):
        raise UserError(f"{label}: expected settings such as `kind: sft`, found {describe(values)}")
    return Source(label, values, _lines(node, ""))


def _with_line(label: str, error: UserError) -> UserError:
    """Where YAML itself says what is wrong and where, that; otherwise the error as it is."""
    cause = error.__cause__
    if not isinstance(cause, yaml.MarkedYAMLError):
        return error
    mark = cause.problem_mark or cause.context_mark
    position = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return UserError(f"{label}{position}: this is not valid YAML: {cause.problem}")


def _text_of(path: Path) -> str:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES // 2**20} MiB")
    return path.read_text(encoding="utf-8")


def _read(text: str) -> tuple[Any, yaml.Node | None]:
    """The values, and the tree that they are made of, which is looked at before they are."""
    node = yaml.compose(text, _Loader)
    if node is not None and _size_of(node, {}, ()) > MAX_NODES:
        raise ValueError(f"with its aliases written out it has more than {MAX_NODES:,} values")
    return yaml.load(text, _Loader), node


def _size_of(node: yaml.Node, sizes: dict[int, int], above: tuple[int, ...]) -> int:
    """Nodes of the tree with each alias written out. ValueError when one contains itself, or lies too deep."""
    if id(node) in above:
        raise ValueError(f"the anchor on line {node.start_mark.line + 1} contains itself")
    if len(above) > MAX_DEPTH:
        raise ValueError(f"line {node.start_mark.line + 1} is nested more than {MAX_DEPTH} deep")
    if id(node) not in sizes:
        match node:
            case yaml.MappingNode(value=pairs):
                below = [each for pair in pairs for each in pair]
            case yaml.SequenceNode(value=items):
                below = items
            case _:
                below = []
        sizes[id(node)] = 1 + sum(_size_of(each, sizes, (*above, id(node))) for each in below)
    return sizes[id(node)]


def _lines(node: yaml.Node | None, prefix: str) -> dict[str, int]:
    """Dotted key -> line; the elements of a list by their numbers, from 0."""
    lines: dict[str, int] = {}
    match node:
        case yaml.MappingNode():
            keyed = [(f"{prefix}{key_node.value}", key_node, value_node) for key_node, value_node in node.value]
        case yaml.SequenceNode():
            keyed = [(f"{prefix}{number}", element, element) for number, element in enumerate(node.value)]
        case _:
            return lines
    for key, position, value_node in keyed:
        lines |= {key: position.start_mark.line + 1} | _lines(value_node, f"{key}.")
    return lines


def overridden(source: Source, overrides: Sequence[str]) -> Source:
    """The source's settings with the command line's in their place; a group's `kind` comes before its settings."""
    values, lines = copy.deepcopy(source.values), dict(source.lines)
    for override in sorted(overrides, key=lambda override: not override.partition("=")[0].endswith(".kind")):
        key, equals, text = override.partition("=")
        if not equals or not all(key.split(".")) or key.count(".") > MAX_DEPTH:
            raise UserError(f"{shortened(override)}: expected KEY=VALUE, such as online.num_steps=20")
        with from_outside(f"{shortened(override)}: the value is not valid YAML", f"put it in quotes: {key}='\"...\"'"):
            value, _ = _read(text)
        _put(values, key, value)
        parts = key.split(".")
        lines = {".".join(parts[:depth]): 0 for depth in range(1, len(parts))} | lines | {key: 0}
    return Source(source.label, values, lines)


def _element(values: list[Any], number: str) -> Any:
    """The element of that number, from 0; None where there is none."""
    return dict(zip(map(str, range(len(values))), values, strict=True)).get(number)


def _put(values: Any, key: str, value: object) -> None:
    """Set a nested value. Another `kind` starts its group anew: the old kind's settings do not apply to it."""
    *groups, name = key.split(".")
    for depth, part in enumerate(groups):
        inner = _element(values, part) if isinstance(values, list) else values.get(part)
        if inner is None and isinstance(values, dict):
            inner = values[part] = {}
        if not isinstance(inner, dict | list) or (isinstance(inner, list) and depth + 1 == len(groups)):
            parent = ".".join(groups[: depth + 1])
            raise UserError(f"{key}: {parent} is {describe(inner)}, which has no settings below it")
        values = inner
    if groups and name == "kind" and values.get("kind", value) != value:
        values.clear()
    values[name] = value
