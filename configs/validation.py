"""What is wrong with a configuration: one plain sentence for each setting error, with its dotted key."""

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, get_origin

from pydantic import ValidationError

from plumbob.configs.base import Settings
from plumbob.configs.schema import element_groups_of, groups_of, kind_of, types_of

_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "model_type": "a group of settings",
    "dict_type": "a group of settings",
    "tuple_type": "a list",
    "greater_than": "a number greater than {gt:,.15g}",
    "greater_than_equal": "a number that is at least {ge:,.15g}",
    "less_than": "a number less than {lt:,.15g}",
    "less_than_equal": "a number that is at most {le:,.15g}",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
}


MAX_SUGGESTED = 4
"""Keys of one name that a message asks about."""

MAX_SHOWN, MAX_SHOWN_BITS = 300, 3400
"""Letters, and bits of a number, of a value that a message repeats."""


@dataclass(frozen=True)
class SettingError:
    """One thing to fix; `key` is empty when it is about several settings together."""

    key: str
    text: str


def nearest(word: str, known: list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.6)), None)


def complete(model: type[Settings], given: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings with what need not be written: the default `kind` of a group, and groups left empty."""
    completed = dict(given)
    for name, field in model.model_fields.items():
        members = types_of(field.annotation)
        groups = groups_of(field.annotation)
        value = given.get(name)
        elements = element_groups_of(field.annotation)
        if elements and isinstance(value, list):
            completed[name] = [_completed_element(elements, element) for element in value]
        if not groups or not (value is None or isinstance(value, dict)):
            continue
        left_out = value is None and (type(None) in members or name not in given)
        if left_out and not (field.is_required() and members == groups):
            continue
        value = dict(value or {})
        if len(groups) > 1 and "kind" not in value and isinstance(field.default, Settings):
            value["kind"] = kind_of(type(field.default))
        group = _group_for(groups, value)
        completed[name] = value if group is None else complete(group, value)
    return completed


def _completed_element(groups: list[type[Settings]], value: Any) -> Any:
    group = _group_for(groups, value) if isinstance(value, dict) else None
    return value if group is None else complete(group, value)


def setting_errors(model: type[Settings], given: Mapping[str, Any]) -> list[SettingError]:
    """Every error in completed settings; an empty list means that the model accepts them."""
    found = list(_walk(model, given, "", model))
    try:
        model.model_validate(given)
    except ValidationError as error:
        found += _type_errors(error, given, {one.key for one in found})
    return found


# ----------------------------------------------------------------------------------- keys: unknown, missing, odd values


def _walk(model: type[Settings], given: Mapping[str, Any], prefix: str, root: type[Settings]) -> Iterator[SettingError]:
    for name in given:
        if name not in model.model_fields:
            yield SettingError(f"{prefix}{name}", f"unknown key; {_suggest(model, str(name), prefix, root)}")
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        if name not in given:
            if field.is_required():
                yield SettingError(
                    key, f"missing key; give it as {key}=... on the command line or as {key} in the file"
                )
            continue
        value = given[name]
        elements = element_groups_of(field.annotation)
        for number, element in enumerate(value if elements and isinstance(value, list) else []):
            group = _group_for(elements, element) if isinstance(element, dict) else None
            if group is not None:
                yield from _of_other_kind(group, elements, element, f"{key}.{number}", root)
            elif isinstance(element, dict) and "kind" not in element:
                kinds = ", ".join(map(kind_of, elements))
                yield SettingError(f"{key}.{number}.kind", f"missing key; give it, one of {kinds}")
        groups = groups_of(field.annotation)
        group = _group_for(groups, value) if isinstance(value, dict) else None
        if group is not None:
            assert isinstance(value, dict)
            yield from _of_other_kind(group, groups, value, key, root)
        elif groups and isinstance(value, str) and groups[0].unknown_key_advice:
            text = f"expected a group of settings, found {describe(value)}; {groups[0].unknown_key_advice}"
            yield SettingError(key, text)
        elif isinstance(value, bool) and bool not in types_of(field.annotation):
            yield SettingError(key, f"expected {_words(field.annotation)}, found {describe(value)}")
        elif isinstance(value, float) and not math.isfinite(value):
            yield SettingError(key, f"expected a finite number, found {value}")


def _of_other_kind(
    group: type[Settings], groups: list[type[Settings]], value: dict[str, Any], key: str, root: type[Settings]
) -> Iterator[SettingError]:
    """The group's own errors; a key that only another kind has is told apart from a misspelt one."""
    for error in _walk(group, value, f"{key}.", root):
        name = error.key.removeprefix(f"{key}.")
        owners = [kind_of(other) for other in groups if name in other.model_fields and name not in group.model_fields]
        if owners:
            text = f"not a key of {key}.kind={kind_of(group)}; it belongs to {key}.kind={owners[0]}"
            yield SettingError(error.key, text)
        else:
            yield error


def _suggest(model: type[Settings], name: str, prefix: str, root: type[Settings]) -> str:
    siblings = list(model.model_fields)
    close = nearest(name, siblings)
    if close is not None and not (model is root and name.startswith(f"{close}_")):
        return "; ".join([f"did you mean {prefix}{close}?", *dict.fromkeys(_advice_on(name, root, close))])
    # Elsewhere the very name alone, within the section that was meant: what is far off, or of a name that many groups
    # have, such as `path` or `action`, has another meaning.
    same = [key for key in dict.fromkeys(_all_keys(root, "")) if key.startswith(prefix) and key.endswith(f".{name}")]
    if 0 < len(same) <= (1 if prefix else MAX_SUGGESTED):
        return f"did you mean {' or '.join(same)}?"
    known = f"known {f'below {prefix[:-1]}' if prefix else 'here'}: {', '.join(siblings)}"
    return "; ".join(dict.fromkeys(filter(None, [known, model.unknown_key_advice, *_advice_on(name, root)])))


def _advice_on(name: str, root: type[Settings], close: str = "") -> Iterator[str]:
    """What the groups at the top say whose names are in the name, as in `reward_function` or `custom_reward`, wherever
    it was given; nothing where another key that is `close` has theirs too."""
    for section, field in root.model_fields.items():
        if section in name and (section == close or section not in close):
            yield from (group.unknown_key_advice for group in groups_of(field.annotation) if group.unknown_key_advice)


def _all_keys(model: type[Settings], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        for group in groups_of(field.annotation):
            yield from _all_keys(group, f"{prefix}{name}.")


# ---------------------------------------------------------------------------------------------------------- wrong types


def _type_errors(error: ValidationError, given: Mapping[str, Any], reported: set[str]) -> Iterator[SettingError]:
    """Pydantic's findings in plain words; the branches of a union become "expected A or B"."""
    expected: dict[str, list[str]] = {}
    values: dict[str, Any] = {}
    for detail in error.errors(include_url=False):
        key = _dotted(detail["loc"], given)
        match detail["type"]:
            case "extra_forbidden" | "missing":
                reported.add(key)
            case "value_error":
                yield SettingError("", str(detail["ctx"]["error"]))
            case "union_tag_invalid":
                tags = detail["ctx"]["expected_tags"]
                expected.setdefault(f"{key}.kind", []).append(_one_of(tags))
                values[f"{key}.kind"] = detail["ctx"]["tag"]
            case kind:
                expected.setdefault(key, []).append(_expectation(kind, detail))
                values[key] = detail["input"]
    for key, words in expected.items():
        below = [other for other in (*expected, *reported) if other.startswith(f"{key}.")]
        if key not in reported and not (below and isinstance(values[key], dict)):
            yield SettingError(key, f"expected {' or '.join(dict.fromkeys(words))}, found {describe(values[key])}")


def _expectation(kind: str, detail: Any) -> str:
    if kind == "literal_error":
        return _one_of(detail["ctx"]["expected"])
    return _EXPECTED.get(kind, detail["msg"]).format(**detail.get("ctx", {}))


def _one_of(choices: str) -> str:
    return f"one of {choices}" if "," in choices or " or " in choices else choices


def _dotted(loc: tuple[int | str, ...], given: Any) -> str:
    """The key as the user wrote it: pydantic's `loc` also names union branches, which are no keys."""
    path: list[str] = []
    for part, following in zip_longest(loc, loc[1:]):
        match given:
            case dict() if part == given.get("kind") and following in given:
                continue  # The branch of a union, which may be called as one of its keys is.
            case dict() if part in given:
                given = given[part]
            case list() if isinstance(part, int):
                given = given[part]
            case _:
                continue
        path.append(str(part))
    return ".".join(path)


def describe(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return f"the text {shortened(repr(value))}"
        case dict():
            return "a group of settings"
        case list():
            return f"the list {shortened(repr(value))}"
        case int() if value.bit_length() > MAX_SHOWN_BITS:
            return "a number of more than a thousand digits"
        case _:
            return shortened(f"{value}")


def shortened(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def _group_for(candidates: list[type[Settings]], value: Mapping[str, Any]) -> type[Settings] | None:
    if len(candidates) == 1:
        return candidates[0]
    return next((group for group in candidates if kind_of(group) == value.get("kind")), None)


def _words(annotation: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", type(None): "null"}
    words = [names.get(member, "a list" if get_origin(member) is tuple else "") for member in types_of(annotation)]
    return " or ".join(word for word in words if word) or "something else"
