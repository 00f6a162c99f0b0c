"""Walks over the schema of settings: the types of their fields, and which of them are files, models or changeable."""

import types
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from plumbob.configs.base import Settings
from plumbob.core.errors import UserError

S = TypeVar("S", bound=Settings)


def types_of(annotation: Any) -> list[Any]:
    """The types that a value may be of."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return types_of(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [member for arg in get_args(annotation) for member in types_of(arg)]
    return [annotation]


def groups_of(annotation: Any) -> list[type[Settings]]:
    """Those of them that are groups of settings."""
    return [member for member in types_of(annotation) if isinstance(member, type) and issubclass(member, Settings)]


def element_groups_of(annotation: Any) -> list[type[Settings]]:
    """Those of the elements, where a value is a list of groups of settings: `tuple[Group, ...]`."""
    return [
        group
        for member in types_of(annotation)
        if get_origin(member) is tuple
        for group in groups_of(get_args(member)[0])
    ]


def kind_of(group: type[Settings]) -> str:
    """What the variant of a union is called."""
    return str(group.model_fields["kind"].default)


def is_marked(field: FieldInfo, mark: type) -> bool:
    """Whether the field's type has the mark: itself, or what it is made of: a member of its union, an element of
    its tuple, a key of its mapping."""
    return any(isinstance(one, mark) for one in field.metadata) or _has(field.annotation, mark)


def _has(annotation: Any, mark: type) -> bool:
    return any(isinstance(one, mark) or _has(one, mark) for one in get_args(annotation))


def _words_of(field: FieldInfo) -> list[Any]:
    """The words that a value may be instead of what its type's mark says."""
    return [word for one in types_of(field.annotation) if get_origin(one) is Literal for word in get_args(one)]


def marked_keys(model: type[Settings], mark: type, prefix: str = "") -> list[str]:
    """Dotted keys of all fields that have the mark. What is below a group that has it is not listed."""
    keys: dict[str, None] = {}
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        if is_marked(field, mark):
            keys[key] = None
        else:
            groups = groups_of(field.annotation) + element_groups_of(field.annotation)
            keys |= {below: None for group in groups for below in marked_keys(group, mark, f"{key}.")}
    return list(keys)


def marked_texts(settings: Settings, mark: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, text) of every text in the settings that has the mark; of a tuple each, of a mapping each key."""
    for name, field in type(settings).model_fields.items():
        match getattr(settings, name):
            case Settings() as group:
                yield from marked_texts(group, mark, f"{prefix}{name}.")
            case str() as text if is_marked(field, mark) and text not in _words_of(field):
                yield f"{prefix}{name}", text
            case tuple() as elements if element_groups_of(field.annotation):
                for number, group in enumerate(elements):
                    yield from marked_texts(group, mark, f"{prefix}{name}.{number}.")
            case (tuple() | dict()) as texts if is_marked(field, mark):
                yield from ((f"{prefix}{name}", text) for text in texts)


def with_marked_texts(settings: S, mark: type, change: Callable[[str], str]) -> S:
    """The same settings, with `change` made to every text that has the mark.

    Raises:
        UserError: two keys of a mapping become one.
    """
    changed: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        match getattr(settings, name):
            case Settings() as group:
                changed[name] = with_marked_texts(group, mark, change)
            case str() as text if is_marked(field, mark) and text not in _words_of(field):
                changed[name] = change(text)
            case tuple() as elements if element_groups_of(field.annotation):
                changed[name] = tuple(with_marked_texts(group, mark, change) for group in elements)
            case tuple() as texts if is_marked(field, mark):
                changed[name] = tuple(map(change, texts))
            case dict() as texts if is_marked(field, mark):
                changed[name] = {change(text): value for text, value in texts.items()}
                if len(changed[name]) < len(texts):
                    raise UserError(f"{name}: two of {', '.join(texts)} are the same: give it once")
    changed = {name: value for name, value in changed.items() if value != getattr(settings, name)}
    return settings.model_copy(update=changed) if changed else settings
