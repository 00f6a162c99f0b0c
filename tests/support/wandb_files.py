"""The files of W&B's offline mode, record by record: a log in the form of LevelDB's behind a header of 7 bytes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE_HEADER, RECORD_HEADER, BLOCK = 7, 7, 32768
FULL, LAST = 1, 4
"""Of the kinds of pieces, those that end a record."""


def wandb_records(folder: Path) -> list[Any]:
    """Those of all files below a folder, in the order of the files' names; `Record` of `wandb_internal.proto`."""
    from wandb.proto.wandb_internal_pb2 import Record

    return [Record.FromString(one) for path in sorted(folder.rglob("*.wandb")) for one in _contents(path.read_bytes())]


def _contents(log: bytes) -> Iterator[bytes]:
    at, content = FILE_HEADER, b""
    while at + RECORD_HEADER <= len(log):
        left = BLOCK - at % BLOCK
        if left < RECORD_HEADER:  # Too little of the block for a piece: it is padding.
            at += left
            continue
        length, kind = int.from_bytes(log[at + 4 : at + 6], "little"), log[at + 6]
        content += log[at + RECORD_HEADER : at + RECORD_HEADER + length]
        at += RECORD_HEADER + length
        if kind in (FULL, LAST):
            yield content
            content = b""
