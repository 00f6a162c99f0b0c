"""Values of Python as JSON and back, rebuilt of Python's own types alone: between a program and those who test it.

What comes back from a program has no code of the program's in it: an object that says it equals all is no such value.
Imports little, as it is read in a sandbox.
"""

import importlib
from collections.abc import Callable
from typing import Any

MAX_BYTES = 4 * 2**20
"""Of one message."""

REBUILT: dict[str, tuple[str, str, Callable[[Any], list[Any]]]] = {
    "deque": ("collections", "deque", lambda value: [list(value)]),
    "Decimal": ("decimal", "Decimal", lambda value: [str(value)]),
    "Fraction": ("fractions", "Fraction", lambda value: [value.numerator, value.denominator]),
    "date": ("datetime", "date.fromisoformat", lambda value: [value.isoformat()]),
    "datetime": ("datetime", "datetime.fromisoformat", lambda value: [value.isoformat()]),
    "timedelta": ("datetime", "timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
}
"""Name of a type -> its module, what makes one there, and of what."""


def encoded(value: Any, other: Callable[[Any], int]) -> Any:
    """As JSON takes it.

    Args:
        other: the number of an object that is no plain value, by which the side that has it finds it again.
    """
    match value:
        case None | bool() | float():
            return value if value is None or isinstance(value, bool) else float(value)
        case int():
            return int(value)
        case str():
            return str.__str__(value)
        case bytes() | bytearray():
            return {"bytes": bytes(value).hex(), "is_array": isinstance(value, bytearray)}
        case complex():
            return {"complex": [value.real, value.imag]}
        case dict():
            return {"dict": [[encoded(key, other), encoded(item, other)] for key, item in value.items()]}
        case list() | tuple() | set() | frozenset():
            kind = next(kind for kind in (list, tuple, set, frozenset) if isinstance(value, kind))
            return {kind.__name__: [encoded(item, other) for item in value]}
    kind = type(value)
    if kind.__name__ in REBUILT and kind.__module__ == REBUILT[kind.__name__][0]:
        return {"rebuilt": [kind.__name__, encoded(REBUILT[kind.__name__][2](value), other)]}
    return {"object": other(value)}


def decoded(content: Any, other: Callable[[int], Any]) -> Any:
    """The value again; ValueError where it is none. `other`: what stands for the object of a number."""
    if not isinstance(content, dict):
        return content
    match content:
        case {"bytes": str(text), "is_array": bool(is_array)}:
            return bytearray.fromhex(text) if is_array else bytes.fromhex(text)
        case {"complex": [float(real), float(imaginary)]}:
            return complex(real, imaginary)
        case {"dict": list(items)}:
            return {decoded(key, other): decoded(item, other) for key, item in items}
        case {"list": list(items)}:
            return [decoded(item, other) for item in items]
        case {"tuple": list(items)}:
            return tuple(decoded(item, other) for item in items)
        case {"set": list(items)}:
            return {decoded(item, other) for item in items}
        case {"frozenset": list(items)}:
            return frozenset(decoded(item, other) for item in items)
        case {"rebuilt": [str(name), arguments]} if name in REBUILT:
            module, maker, _ = REBUILT[name]
            made: Any = importlib.import_module(module)
            for part in maker.split("."):
                made = getattr(made, part)
            return made(*decoded(arguments, other))
        case {"object": int(number)}:
            return other(number)
    raise ValueError("no value of Python's own types")
