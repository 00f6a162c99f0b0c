"""What a program asks of the disk, in order."""

import os
from pathlib import Path

import pytest


def record_disk_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(call, name of the file) of each flush, and of each renaming by the new name."""
    made: list[tuple[str, str]] = []
    fsync = os.fsync

    def flushes(descriptor: int) -> None:
        made.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flushes)
    for call in ("replace", "rename"):
        monkeypatch.setattr(os, call, _noted(call, made))
    return made


def _noted(call: str, made: list[tuple[str, str]]) -> object:
    real = getattr(os, call)

    def rename(source: Path, target: Path) -> None:
        made.append((call, Path(target).name))
        real(source, target)

    return rename
