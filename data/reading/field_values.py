"""Values of a row's fields: text, or messages with role and content; and how a message to a person shows them."""

from collections.abc import Mapping
from typing import Any

from plumbob.data.chat import Message
from plumbob.data.records import RowError

Fields = Mapping[str, Any]

NUM_LISTED = 40
"""Names that a message lists at most."""


def shown(value: object) -> str:
    """A value, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def listed(fields: Fields) -> str:
    """The names of a row's fields, of which there may be many, and long ones, and some that are no Unicode text."""
    names = [str(name).encode(errors="backslashreplace").decode() for name in sorted(map(str, fields))]
    short = [name if len(name) <= 60 else f"{name[:57]}..." for name in names[:NUM_LISTED]]
    return ", ".join(short) + (f" and {len(names) - NUM_LISTED} more" if len(names) > NUM_LISTED else "")


def text_at(fields: Fields, name: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise RowError(f"'{name}': expected text, found {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RowError(
            f"'{name}': expected Unicode text, found half a surrogate pair at character {error.start}"
        ) from None
    return value


def messages_in(name: str, value: object) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise RowError(f"'{name}': expected a list of messages with role and content, found {shown(value)}")
    return [_message(name, message) for message in value]


def _message(name: str, message: object) -> Message:
    """Without the keys that are null: Arrow gives every message all keys that any has."""
    given = _without_nulls(message)
    if not isinstance(given, dict) or not isinstance(given.get("role"), str) or "content" not in given:
        raise RowError(f"'{name}': expected messages with role and content, found {shown(message)}")
    for part in ("role", "content"):
        text_at(given, part)
    return given


def _without_nulls(value: object) -> Any:
    match value:
        case dict():
            return {name: _without_nulls(field) for name, field in value.items() if field is not None}
        case list():
            return [_without_nulls(item) for item in value]
        case _:
            return value
