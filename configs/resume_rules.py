"""What may change when a run resumes: where and how fast it is computed, never what."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from plumbob.configs.base import MayChange, Settings
from plumbob.configs.schema import element_groups_of, groups_of, is_marked, marked_keys
from plumbob.core.errors import UserError


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Dotted key -> [value before, value after] where they differ; None stands for a key that one side lacks."""
    old, new = flat(before), flat(after)
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return {key: [old.get(key), new.get(key)] for key in keys}


def check_changes(model: type[Settings], changed: Mapping[str, Any]) -> None:
    """Raises UserError when one of the changed keys of this kind of run is not of those that may change."""
    refused = [key for key in changed if not may_change(model, key)]
    if refused:
        raise UserError(
            f"{', '.join(refused)}: cannot change when a run resumes, as that would change what it computes; begin a "
            f"new run for it. These may change: {_words(model)}"
        )


def may_change(model: type[Settings], key: str) -> bool:
    """Whether a setting, or a group that it is in, is `Changeable`."""
    candidates = [model]
    for name in key.split("."):
        if name.isdecimal():  # An element of a list.
            continue
        fields = [group.model_fields[name] for group in candidates if name in group.model_fields]
        if any(is_marked(field, MayChange) for field in fields):
            return True
        candidates = [
            group for field in fields for group in [*groups_of(field.annotation), *element_groups_of(field.annotation)]
        ]
    return False


def _words(model: type[Settings]) -> str:
    """The settings that may change, by the group that they are in: `cluster; learner.(num_workers, zero_stage)`."""
    names = defaultdict(list)
    for key in marked_keys(model, MayChange):
        group, _, name = key.rpartition(".")
        names[group].append(name)
    return "; ".join(f"{group}.({', '.join(below)})" if group else ", ".join(below) for group, below in names.items())


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key; a list is one value, but for one of groups, whose elements have numbers."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, list | tuple) and value and all(isinstance(each, Mapping) for each in value):
            value = {str(number): each for number, each in enumerate(value)}
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[f"{prefix}{name}"] = value
    return result
