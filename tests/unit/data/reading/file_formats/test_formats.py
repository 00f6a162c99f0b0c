import gzip
import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plumbob.core.errors import UserError
from plumbob.data.reading.file_formats.formats import FileRow, iterate_rows, list_files

ROWS = [{"prompt": "a", "n": 1}, {"prompt": "é", "n": 2}]
EXPECTED = [(1, {"prompt": "a", "n": 1}), (2, {"prompt": "é", "n": 2})]


def write_arrow(path: Path, stream: bool) -> None:
    table = pa.Table.from_pylist(ROWS)
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=1)  # Two batches: row numbers must run on over them.


def write(path: Path) -> None:
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode()
    match path.name:
        case "a.jsonl" | "a.ndjson":
            path.write_bytes(lines)
        case "a.jsonl.gz":
            path.write_bytes(gzip.compress(lines))
        case "a.json":
            path.write_text(json.dumps(ROWS))
        case "a.json.gz":
            path.write_bytes(gzip.compress(json.dumps(ROWS).encode()))
        case "a.parquet":
            pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=1)
        case "file.arrow":
            write_arrow(path, stream=False)
        case "stream.arrow":
            write_arrow(path, stream=True)


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.jsonl.gz", "a.ndjson", "a.json", "a.json.gz", "a.parquet", "file.arrow", "stream.arrow"]
)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    rows = list(iterate_rows(str(tmp_path / name)))
    assert [(row.number, row.fields) for row in rows] == EXPECTED
    assert {row.file for row in rows} == {name}


def test_a_text_document_ends_at_a_blank_line_and_is_numbered_by_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\ntwo\r\n\r\n  \r\nthree".encode())
    assert list(iterate_rows(str(tmp_path / "a.txt"))) == [
        FileRow("a.txt", 1, {"text": "one\ntwo"}),
        FileRow("a.txt", 5, {"text": "three"}),
    ]


def test_a_bad_line_keeps_its_number_and_the_next_ones_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n\n{"text": \n[1]\n{"text": "\xff"}\n{"text": "b", "x": null}\n')
    rows = list(iterate_rows(str(tmp_path / "a.jsonl")))
    assert [row.number for row in rows] == [1, 3, 4, 5, 6]
    assert [bool(row.fault) for row in rows] == [False, True, True, True, False]
    assert "list" in rows[2].fault
    assert rows[4].fields == {"text": "b"}


def test_a_folder_of_the_datasets_library_is_read_without_its_side_files(tmp_path: Path) -> None:
    write_arrow(tmp_path / "data-00001-of-00002.arrow", stream=True)
    write_arrow(tmp_path / "data-00000-of-00002.arrow", stream=True)
    (tmp_path / "state.json").write_text("{}")
    (tmp_path / "dataset_info.json").write_text("{}")
    rows = list(iterate_rows(str(tmp_path)))
    assert [(row.file[:10], row.number) for row in rows] == [
        ("data-00000", 1),
        ("data-00000", 2),
        ("data-00001", 1),
        ("data-00001", 2),
    ]


def test_caches_beside_a_saved_dataset_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    datasets.Dataset.from_list([{"text": "a"}, {"text": "b"}, {"text": "c"}]).save_to_disk(str(folder), num_shards=2)
    loaded = datasets.load_from_disk(str(folder))
    loaded.map(lambda row: {"text": row["text"].upper()}, load_from_cache_file=False)
    assert len(list(folder.glob("cache-*.arrow"))) == 1
    assert [row.fields["text"] for row in iterate_rows(str(folder))] == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["gone.arrow", "../other.arrow", "notes.md", 3])
def test_a_saved_dataset_without_its_files_is_refused(tmp_path: Path, name: object) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "data.parquet")
    (tmp_path / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": "data.parquet"}, {"filename": name}]})
    )
    with pytest.raises(UserError, match=r"state\.json names .*, which is no data file there: save the dataset again"):
        list_files(str(tmp_path))


def test_a_glob_takes_what_it_matches(tmp_path: Path) -> None:
    for name in ("train-1", "train-0", "test-0"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": name}))
    assert [row.fields["text"] for row in iterate_rows(f"{tmp_path}/train-*")] == ["train-0", "train-1"]


def test_a_folder_of_several_kinds_is_refused_with_a_glob_to_use(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}")
    (tmp_path / "b.jsonl").write_text("{}")
    (tmp_path / "LICENSE.txt").write_text("free")
    with pytest.raises(UserError, match=r"2 \.jsonl, 1 \.txt.*\*\.jsonl"):
        list(iterate_rows(str(tmp_path)))


def test_a_folder_of_splits_names_them(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    with pytest.raises(UserError, match="the folders test, train: give one of them"):
        list(iterate_rows(str(tmp_path)))


def corrupt(path: Path, kind: str) -> None:
    whole = gzip.compress(b"".join(json.dumps({"text": str(number)}).encode() + b"\n" for number in range(5000)))
    # A gzip header has 10 bytes; the next begins a block, and 0xff names a block type that there is none of.
    flipped = whole[:10] + b"\xff" + whole[11:]
    contents = {"truncated": whole[: len(whole) // 2], "flipped": flipped, "other": b"hello", "empty": b""}
    path.write_bytes(contents[kind])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jsonl.gz", "truncated"),
        ("a.jsonl.gz", "flipped"),
        ("a.jsonl.gz", "other"),
        ("a.parquet", "other"),
        ("a.arrow", "other"),
        ("a.arrow", "empty"),
        ("a.json", "other"),
        ("a.json", "empty"),
    ],
)
def test_a_damaged_file_is_one_message_with_its_name(tmp_path: Path, name: str, kind: str) -> None:
    corrupt(tmp_path / name, kind)
    with pytest.raises(UserError, match=rf"{name}: cannot be read as"):
        list(iterate_rows(str(tmp_path / name)))


def test_a_text_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match="utf-8"):
        list(iterate_rows(str(tmp_path / "a.txt")))


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.parquet"])
def test_a_file_without_rows_is_refused(tmp_path: Path, name: str) -> None:
    if name == "a.parquet":
        pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / name)
    else:
        (tmp_path / name).write_text("\n\n")
    with pytest.raises(UserError, match=f"{name}: holds no rows"):
        list(iterate_rows(str(tmp_path / name)))


def test_missing_and_unknown_files_say_what_is_accepted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.jsonl: does not exist"):
        list(iterate_rows(str(tmp_path / "nowhere.jsonl")))
    with pytest.raises(UserError, match=r"matches no file of a known kind"):
        list(iterate_rows(str(tmp_path / "*.jsonl")))
    (tmp_path / "a.xlsx").write_text("x")
    with pytest.raises(UserError, match=r"a\.xlsx: unknown kind of file.*\.parquet"):
        list(iterate_rows(str(tmp_path / "a.xlsx")))
