"""The digest of a file's rows: how they are stored does not count, and whatever is in them does."""

import gzip
import json
import os
from datetime import datetime
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plumbob.core.errors import UserError
from plumbob.data.row_digest import digest_of_rows

ROWS: list[dict[str, Any]] = [
    {"text": f"car {number} has a \u00fcber door", "turns": [{"role": "user", "number": number}]}
    for number in range(99)
]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def test_the_same_rows_stored_otherwise_have_one_digest(tmp_path: Path) -> None:
    file = write(tmp_path / "text.jsonl", ROWS)
    digest = digest_of_rows(file)
    assert len(digest) == 32
    os.utime(file, (1, 1))
    assert digest_of_rows(file) == digest
    write(tmp_path / "text.jsonl", [dict(reversed(row.items())) for row in ROWS])
    assert digest_of_rows(file) == digest
    packed, table, whole, parts = (tmp_path / name for name in ("t.jsonl.gz", "t.parquet", "t.json", "parts"))
    packed.write_bytes(gzip.compress(Path(file).read_bytes()))
    pq.write_table(pa.Table.from_pylist(ROWS), table)
    whole.write_text(json.dumps(ROWS, ensure_ascii=False, indent=1))
    parts.mkdir()
    write(parts / "a.jsonl", ROWS[:50])
    write(parts / "b.jsonl", ROWS[50:])
    for same in (packed, table, whole, parts, parts / "*.jsonl"):
        assert digest_of_rows(str(same)) == digest


def test_whatever_differs_has_another(tmp_path: Path) -> None:
    first, *rest = ROWS
    different = [
        *(ROWS, rest, ROWS[::-1], [*ROWS, first], [first | {"text": "other"}, *rest], [first | {"more": 0}, *rest]),
        *([first | {"turns": [{"role": "user", "number": 0.5}]}, *rest], [first | {"turns": "[]"}, *rest]),
        *([{"text": "a"}, {"text": "b"}], [{"text": "a\\n{}b"}], [{"text": "1"}], [{"text": 1}], [{"text": "\ud800"}]),
    ]
    digests = [digest_of_rows(write(tmp_path / f"{number}.jsonl", rows)) for number, rows in enumerate(different)]
    for one, other in combinations(digests, 2):
        assert one != other


def test_columns_that_json_does_not_have_count_too(tmp_path: Path) -> None:
    digests = set()
    for number, value in enumerate((datetime(2026, 1, 2), datetime(2026, 1, 3), Decimal("1.5"), b"a", b"b", "a")):
        pq.write_table(pa.Table.from_pylist([{"text": "t", "other": value}]), tmp_path / f"{number}.parquet")
        digests.add(digest_of_rows(str(tmp_path / f"{number}.parquet")))
    assert len(digests) == 6


def test_a_row_that_is_none_counts_as_it_is_and_a_missing_file_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "a"}\n{"text": \n')
    assert digest_of_rows(str(broken)) != digest_of_rows(write(tmp_path / "whole.jsonl", [{"text": "a"}]))
    with pytest.raises(UserError, match="does not exist"):
        digest_of_rows(str(tmp_path / "nowhere.jsonl"))
