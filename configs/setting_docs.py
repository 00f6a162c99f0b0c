"""All settings as a list: of each its type, bounds, default and meaning, and the kinds of run that have it."""

import ast
import inspect
import json
import re
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import JsonValue
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from plumbob.configs.base import IsFile, IsModel, MayChange, Settings
from plumbob.configs.runs import RUN_KINDS
from plumbob.configs.schema import element_groups_of, groups_of, is_marked, kind_of, types_of

KIND = "kind"
"""By which a variant of a union, and a kind of run, is chosen."""

NUMBER = "N"
"""Stands in a key for the place of an element in its list."""

WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text", type(None): "null"}


@dataclass(frozen=True)
class DescribedSetting:
    """One setting.

    Attributes:
        key: dotted.
        type: in words, with its bounds.
        default: as JSON has it; None where it is null, or there is none.
        is_required: there is none.
        meaning: as its docstring, or that of its group, says; empty where the name says all.
        choices: of a variant's `kind`, what each stands for.
        may_change: whether it may be another when a run resumes.
        only_with: the choices of which one must be made for it, such as `online.estimator.kind=gae`; empty where it is
            always there.
        runs: kinds of run that have it so.
    """

    key: str
    type: str
    default: Any = None
    is_required: bool = False
    meaning: str = ""
    choices: tuple[tuple[str, str], ...] = ()
    may_change: bool = False
    only_with: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()


def described_settings(kinds: Sequence[str] = tuple(RUN_KINDS)) -> list[DescribedSetting]:
    """Those of these kinds of run; what several of them, or several variants, have alike stands once."""
    choices = tuple((kind, _doc(RUN_KINDS[kind])) for kind in kinds)
    chosen = DescribedSetting(KIND, _one_of(kinds), is_required=True, choices=choices, runs=tuple(kinds))
    found: dict[str, DescribedSetting] = {}
    for kind in kinds:
        for setting in _described(RUN_KINDS[kind], "", None, (), False):
            if setting.key == KIND:
                continue
            same = json.dumps([setting.key, setting.type, setting.default, setting.meaning, setting.may_change])
            before = found.get(same, setting)
            found[same] = replace(
                before,
                only_with=tuple(dict.fromkeys([*before.only_with, *setting.only_with])),
                runs=tuple(dict.fromkeys([*before.runs, kind])),
            )
    return [chosen, *found.values()]


def _described(
    group: type[Settings], prefix: str, given: Settings | None, only_with: tuple[str, ...], may_change: bool
) -> Iterator[DescribedSetting]:
    """The settings of a group and of all groups in it.

    Args:
        given: what of the group is taken by default; None takes each field's own default.
        only_with: where the group is a variant, the choice of it.
    """
    for name, field in group.model_fields.items():
        key, groups = f"{prefix}{name}", groups_of(field.annotation)
        changeable = may_change or is_marked(field, MayChange)
        default = getattr(given, name) if given is not None else field.get_default(call_default_factory=True)
        is_required = given is None and field.is_required()
        setting = DescribedSetting(
            key, type_in_words(field), None, is_required, _field_doc(group, name), (), changeable, only_with
        )
        if not groups:
            yield replace(setting, default=None if is_required else to_jsonable_python(default))
            elements = element_groups_of(field.annotation)
            yield from _described_groups(elements, f"{key}.{NUMBER}", None, only_with, changeable) if elements else ()
            continue
        is_union = len(groups) > 1
        if not is_union or type(None) in types_of(field.annotation):
            yield replace(setting, meaning=setting.meaning or ("" if is_union else _doc(groups[0])))
        yield from _described_groups(groups, key, default, only_with, changeable)


def _described_groups(
    groups: list[type[Settings]], key: str, default: Any, only_with: tuple[str, ...], changeable: bool
) -> Iterator[DescribedSetting]:
    """What is below a key: of several groups also the `kind` by which one is chosen."""
    is_union = len(groups) > 1
    if is_union:
        kinds = [kind_of(each) for each in groups]
        chosen = kind_of(type(default)) if isinstance(default, Settings) else None
        choices = tuple((kind_of(each), _doc(each)) for each in groups)
        yield DescribedSetting(
            f"{key}.{KIND}", _one_of(kinds), chosen, chosen is None, "", choices, changeable, only_with
        )
    for each in groups:
        own = default if type(default) is each else None
        only = (f"{key}.{KIND}={kind_of(each)}",) if is_union else only_with
        below = _described(each, f"{key}.", own, only, changeable)
        yield from (setting for setting in below if not (is_union and setting.key == f"{key}.{KIND}"))


# --------------------------------------------------------------------------------------------------------------- types


def type_in_words(field: FieldInfo) -> str:
    """Such as "whole number above 0 and at most 4,096"."""
    return _words(field.annotation, tuple(field.metadata))


def _words(annotation: Any, marks: tuple[Any, ...]) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(args[0], (*marks, *(each for arg in args[1:] for each in _unpacked(arg))))
    if origin in (Union, types.UnionType):
        members = types_of(annotation)
        words = [_words(arg, marks) for arg in args]
        return " or ".join(dict.fromkeys(words)) if members else ""
    if origin is Literal:
        return _one_of([str(arg) for arg in args])
    if origin is tuple:
        return f"list of: {_words(args[0], marks)}"
    if origin is dict:
        return f"{_words(args[0], ()).replace(WORDS[str], 'name')}, each with: {_words(args[1], ())}"
    if annotation in (Any, JsonValue):
        return "anything"
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return "group"
    if any(isinstance(mark, IsModel) for mark in marks):
        return "model (a folder or hub name)"
    if any(isinstance(mark, IsFile) for mark in marks):
        return "file (also a folder or a pattern of files)"
    return " ".join(filter(None, (WORDS[annotation], _bounds(marks))))


def _unpacked(mark: Any) -> list[Any]:
    return list(mark.metadata) if isinstance(mark, FieldInfo) else [mark]


def _bounds(marks: tuple[Any, ...]) -> str:
    words = []
    for mark in marks:
        match mark:
            case Gt(gt=bound):
                words.append(f"above {bound:,}")
            case Ge(ge=bound):
                words.append(f"from {bound:,} on")
            case Lt(lt=bound):
                words.append(f"below {bound:,}")
            case Le(le=bound):
                words.append(f"at most {bound:,}")
    return " and ".join(words)


def _one_of(choices: Sequence[str]) -> str:
    return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"


# ------------------------------------------------------------------------------------------------------------ meanings


def _doc(group: type[Settings]) -> str:
    """Of the class itself, on one line."""
    return _joined(vars(group).get("__doc__") or "")


def _field_doc(group: type[Settings], name: str) -> str:
    """The docstring below a field, in the class that said it last."""
    docs = (
        _docs_of(each).get(name)
        for each in inspect.getmro(group)
        if issubclass(each, Settings) and each is not Settings
    )
    return next((doc for doc in docs if doc), "")


@cache
def _docs_of(group: type[Settings]) -> dict[str, str]:
    """Field -> the docstring that stands below it in the source of the class."""
    found: dict[str, str] = {}
    for one, after in zip(body := _class_body(group), body[1:], strict=False):
        match one, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = re.sub(r"\bNone\b", "null", _joined(text))  # As settings are written.
    return found


def _class_body(group: type[Settings]) -> list[ast.stmt]:
    return _classes_of(inspect.getmodule(group))[group.__name__].body


@cache
def _classes_of(module: types.ModuleType) -> dict[str, ast.ClassDef]:
    tree = ast.parse(inspect.getsource(module))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _joined(text: str) -> str:
    return " ".join(text.split())
