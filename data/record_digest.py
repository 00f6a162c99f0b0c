"""Digests of records, the same wherever and whenever they are read, by which what resumes knows its input again."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from plumbob.core.errors import UserError


@dataclass(frozen=True)
class Inputs:
    """What a run or a stage reads, by the setting that names a file of records, or would name one of those held out.

    Attributes:
        files: `SETTING=FILE`, where the records come from.
        digests: of the records.
    """

    files: Mapping[str, str]
    digests: Mapping[str, str]

    def check(self, began_with: Mapping[str, str]) -> None:
        """Compare with the digests of before: on other records a resumed run would silently compute something else.

        What there was no digest of is passed over. Raises UserError when records differ.
        """
        known = [name for name in self.digests if name in began_with]
        changed = dict.fromkeys(self.files[name] for name in known if self.digests[name] != began_with[name])
        if changed:
            raise UserError(
                f"{', '.join(changed)}: the records are not those that the run began with: a run is resumed on the "
                f"same files, limits, tokenizer, seed and version of Plumbob. Put them back, or start a new run"
            )


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
