"""A digest of records, the same wherever and whenever they are read."""

import dataclasses
import hashlib
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np


def digest_of(records: Iterable[Any]) -> str:
    """Of the records in their order: 32 hex digits. They are made of arrays, text, numbers, tuples and dataclasses."""
    digest = hashlib.blake2b(digest_size=16)
    for record in records:
        _feed(digest, record)
    return digest.hexdigest()


@cache
def _fields(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


def _feed(digest: hashlib.blake2b, value: Any) -> None:
    """Every value with its kind and its size, so that no two that differ look the same one after the other."""
    match value:
        case np.ndarray():
            digest.update(f"{value.dtype.str}{value.shape}".encode())
            digest.update(np.ascontiguousarray(value).data)
        case str():
            content = value.encode()
            digest.update(f"str{len(content)} ".encode())
            digest.update(content)
        case bool() | int() | float() | None:
            digest.update(f"{type(value).__name__}{value!r} ".encode())
        case tuple():
            digest.update(f"tuple{len(value)} ".encode())
            for item in value:
                _feed(digest, item)
        case _ if dataclasses.is_dataclass(value):
            kind: Any = type(value)
            for name in _fields(kind):
                _feed(digest, getattr(value, name))
        case _:
            raise TypeError(f"a record has a {type(value).__name__} in it, which has no digest")
