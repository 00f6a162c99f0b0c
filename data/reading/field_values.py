"""Values of a row's fields: text at a name, and how a message to a person shows names and values."""

from collections.abc import Mapping
from typing import Any

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
