"""Settings that have another name now: the old one is told the new, and still read in the folders of older runs."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from plumbob.configs.validation import SettingError


@dataclass(frozen=True)
class MovedKey:
    """A key that is called something else."""

    key: str
    new_name: str


@dataclass(frozen=True)
class RenamedValue:
    """A choice of `key` that is called something else."""

    key: str
    value: str
    new_name: str


@dataclass(frozen=True)
class JoinedSwitch:
    """A switch that is part of what it switched: null there is what false was."""

    key: str
    new_name: str


Renamed = MovedKey | RenamedValue | JoinedSwitch

RENAMED: tuple[Renamed, ...] = (
    MovedKey("ppo", "online"),
    RenamedValue("kind", "ppo", "online"),
    MovedKey("data.max_answer_tokens", "data.max_response_tokens"),
    RenamedValue("online.loss_mean", "answer", "response"),
    RenamedValue("dpo.loss.likelihood", "answer", "response"),
    MovedKey("online.clip_range", "online.policy_loss.clip_range"),
    MovedKey("online.dual_clip", "online.policy_loss.dual_clip"),
    MovedKey("judge", "gold_reward"),
    JoinedSwitch("rollout.keep_partial", "rollout.partial_tokens"),
)


def renamed_errors(values: Mapping[str, Any]) -> Iterator[SettingError]:
    """One for each setting that is written by its old name."""
    for renamed in RENAMED:
        group, name = _group_of(values, renamed.key)
        if name not in group:
            continue
        match renamed:
            case MovedKey():
                yield SettingError(renamed.key, f"it is called {renamed.new_name} now")
            case RenamedValue():
                if group[name] == renamed.value:
                    yield SettingError(renamed.key, f"{renamed.value} is called {renamed.new_name} now")
            case JoinedSwitch():
                text = f"{renamed.new_name} alone says this now: null for false, a number for true"
                yield SettingError(renamed.key, text)
            case _:
                assert_never(renamed)


def with_new_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same nested settings by the names that they have now."""
    result = copy.deepcopy(dict(values))
    for renamed in RENAMED:
        group, name = _group_of(result, renamed.key)
        if name not in group:
            continue
        match renamed:
            case MovedKey():
                _put(result, renamed.new_name, group.pop(name))
            case RenamedValue():
                group[name] = renamed.new_name if group[name] == renamed.value else group[name]
            case JoinedSwitch():
                if not group.pop(name):
                    _put(result, renamed.new_name, None)
            case _:
                assert_never(renamed)
    return result


def _group_of(values: Mapping[str, Any], key: str) -> tuple[Any, str]:
    """The group that a dotted key is in, empty where there is none, and the key's own name."""
    *groups, name = key.split(".")
    for group in groups:
        inner = values.get(group)
        values = inner if isinstance(inner, dict) else {}
    return values, name


def _put(values: dict[str, Any], key: str, value: object) -> None:
    *groups, name = key.split(".")
    for group in groups:
        values = values.setdefault(group, {})
        if not isinstance(values, dict):
            return  # Something else is wrong with it, which is reported.
    values[name] = _joined(values.get(name), value)


def _joined(present: object, moved: object) -> object:
    """A group that moves to where one is already becomes part of it."""
    if not (isinstance(present, dict) and isinstance(moved, dict)):
        return moved
    return present | {name: _joined(present.get(name), value) for name, value in moved.items()}
