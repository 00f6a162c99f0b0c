"""A step of the journal that several have written: there as a whole or not at all, and read as one."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from plumbob.core.errors import RunFailed, UserError
from plumbob.rollout.journal import read_journal, read_step, write_rows, write_step
from plumbob.rollout.journal_files import check_written, step_file, step_files, step_writers
from tests.support.folder_names import names
from tests.unit.rollout.test_journal import ROW


def write_by_two(folder: Path, step: int, seeds: tuple[int, int]) -> None:
    with step_writers(folder, step, 2) as paths:
        for path, seed in zip(paths, seeds, strict=True):
            write_rows(path, step, [replace(ROW, seed=seed)])


def test_a_step_of_two_writers_is_one_step(tmp_path: Path) -> None:
    write_step(tmp_path, 1, [replace(ROW, seed=1)])
    write_by_two(tmp_path, 2, (2, 3))
    assert names(tmp_path) == ["step-000001.parquet", "step-000002.parquet"]
    assert [(step, row.seed) for step, row in read_journal(tmp_path)] == [(1, 1), (2, 2), (2, 3)]
    assert [row.seed for row in read_step(step_files(tmp_path)[1])] == [2, 3]
    # Other tools read the folder as they read the file.
    assert pq.read_table(step_file(tmp_path, 2))["seed"].to_pylist() == [2, 3]


def test_a_step_that_one_of_two_writers_did_not_end_is_not_there(tmp_path: Path) -> None:
    write_by_two(tmp_path, 1, (1, 2))
    with pytest.raises(OSError, match="No space"), step_writers(tmp_path, 2, 2) as (path, _):
        write_rows(path, 2, [ROW])
        raise OSError(28, "No space left on device")
    # One that died at it left a hidden folder, which the next writers of the step remove.
    (tmp_path / ".step-000002.parquet.0a1b.partial").mkdir()
    assert [step for step, _ in read_journal(tmp_path)] == [1, 1]
    write_by_two(tmp_path, 2, (3, 4))
    assert names(tmp_path) == ["step-000001.parquet", "step-000002.parquet"]


def test_a_step_is_replaced_whoever_wrote_it_before(tmp_path: Path) -> None:
    write_by_two(tmp_path, 1, (1, 2))
    write_by_two(tmp_path, 1, (3, 4))
    assert [row.seed for _, row in read_journal(tmp_path)] == [3, 4]
    write_step(tmp_path, 1, [replace(ROW, seed=5)])
    assert [row.seed for _, row in read_journal(tmp_path)] == [5]
    write_by_two(tmp_path, 1, (6, 7))
    assert [row.seed for _, row in read_journal(tmp_path)] == [6, 7]
    assert names(tmp_path) == ["step-000001.parquet"]


def test_the_driver_has_to_see_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "part-0000.parquet"
    with pytest.raises(RunFailed, match="was written and cannot be read by the driver: No such file"):
        check_written(path, 4)
    path.write_bytes(b"PAR")
    with pytest.raises(RunFailed, match="4 bytes were written; the driver sees 3"):
        check_written(path, 4)


def test_a_folder_without_files_is_no_step(tmp_path: Path) -> None:
    step_file(tmp_path, 1).mkdir()
    with pytest.raises(UserError, match=r"step-000001.parquet: is not a journal of rollouts: the folder has no part"):
        read_step(step_file(tmp_path, 1))
