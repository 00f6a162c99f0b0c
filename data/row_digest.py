"""A digest of the rows that a file, a folder or a glob holds, the same however they are stored."""

import hashlib
import json

from plumbob.data.reading.file_formats.formats import iterate_rows


def digest_of_rows(path: str) -> str:
    """32 hex digits, of all fields of all rows in their order, read one after another.

    Files that were touched or packed otherwise, or have the fields of a row in another order, hold the same rows.
    UserError where they cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    for row in iterate_rows(path):
        content = row.fault or row.fields
        digest.update(f"{json.dumps(content, sort_keys=True, default=_described)}\n".encode())
    return digest.hexdigest()


def _described(value: object) -> str:
    """What JSON has no name for, such as a column of times, of decimals or of bytes."""
    return f"{type(value).__name__} {value!r}"
