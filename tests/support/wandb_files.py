"""The files of W&B's offline mode, record by record: a log in the form of LevelDB's behind a header of 7 bytes."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE_HEADER, RECORD_HEADER, BLOCK = 7, 7, 32768
FULL, LAST = 1, 4
"""Of the kinds of pieces, those that end a record."""

PATIENCE_S = 20.0


def wandb_records(folder: Path) -> list[Any]:
    """Those of all files below a folder, in the order of the files' names; `Record` of `wandb_internal.proto`."""
    return [record for path in sorted(folder.rglob("*.wandb")) for record in _whole(path)]


def _whole(path: Path) -> list[Any]:
    """Up to the record of the run's exit, which W&B's process writes after `finish` has returned here."""
    from wandb.proto.wandb_internal_pb2 import Record

    deadline = time.monotonic() + PATIENCE_S
    while True:
        records = [Record.FromString(one) for one in _contents(path.read_bytes())]
        if records and records[-1].WhichOneof("record_type") == "exit":
            return records
        assert time.monotonic() < deadline, f"{path} has no end {PATIENCE_S:g} s after the run's"
        time.sleep(0.05)


def _contents(log: bytes) -> Iterator[bytes]:
    at, content = FILE_HEADER, b""
    while at + RECORD_HEADER <= len(log):
        left = BLOCK - at % BLOCK
        if left < RECORD_HEADER:  # Too little of the block for a piece: it is padding.
            at += left
            continue
        length, kind = int.from_bytes(log[at + 4 : at + 6], "little"), log[at + 6]
        if at + RECORD_HEADER + length > len(log):  # It is being written.
            return
        content += log[at + RECORD_HEADER : at + RECORD_HEADER + length]
        at += RECORD_HEADER + length
        if kind in (FULL, LAST):
            yield content
            content = b""
