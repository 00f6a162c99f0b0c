"""The token-level journal: what is written is read back, and a file is whole or absent."""

import os
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plumbob.core.errors import UserError
from plumbob.rollout import journal
from plumbob.rollout.journal import JournalRow, read_journal, read_step, write_step
from plumbob.rollout.rollout_records import EpisodeRecord, EpisodeTurn
from plumbob.rollout.shaping_record import ShapingRecord, ShapingStep
from tests.support.disk_calls import record_disk_calls

ROW = JournalRow(
    position=2**33,
    prompt_id="p1",
    group_id="g1",
    sample_index=2,
    seed=2**40,
    prompt="wie groß?",
    response="3 m",
    prompt_ids=np.array([5, 6, 7], np.int32),
    token_ids=np.array([9, 1], np.int32),
    logprobs=np.array([-0.1, -2.5], np.float32),
    ref_logprobs=np.array([-0.2, -2.25], np.float32),
    values=np.array([0.5, 0.75], np.float32),
    rewards={"model": 1.25, "length": -0.1},
    score=1.15,
    dropped=None,
    versions=np.array([3, 4], np.int32),
    action_mask=np.array([True, False]),
    finish_reason="stop",
    worker="rollout-0",
)


LEARNT = ("learner_logprobs", "entropies", "advantages", "returns", "token_rewards", "ratios")
"""Columns that a step of an earlier version has not."""


def assert_equal_rows(left: JournalRow, right: JournalRow) -> None:
    for name in JournalRow.__dataclass_fields__:
        ours, theirs = getattr(left, name), getattr(right, name)
        if isinstance(ours, np.ndarray):
            assert ours.dtype == theirs.dtype, name
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
        else:
            assert ours == theirs, name


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    without_critic = replace(ROW, prompt_id="p2", values=np.array([], np.float32), rewards={"rule": 0.0})
    empty = np.array([], np.int32)
    floats = np.array([], np.float32)
    partial = replace(
        ROW, token_ids=empty, versions=empty, logprobs=floats, ref_logprobs=floats, values=floats,
        action_mask=np.array([], np.bool_), finish_reason="partial", response="",
    )  # fmt: skip
    left_out = replace(ROW, dropped="flat", ref_logprobs=floats, values=floats)
    failed = replace(ROW, failures={"judge": "time-out: 5 s"})
    graded = replace(ROW, teacher_logprobs=np.array([-1.25, -0.5], np.float32))
    with_columns = replace(ROW, prompt_row={"answer": "#### 72", "tags": ["a", None], "level": 2})
    answered = EpisodeTurn(0, "2+2?", -0.25, ({"role": "tool", "content": "4"},))
    shaping = ShapingRecord((ShapingStep("größe", "part", 0.1), ShapingStep("kl", "kl", -0.025)), 0.1, 0.075)
    floats_of = {name: np.array([0.1, -0.2], np.float32) for name in LEARNT}
    learnt = replace(ROW, clipped=np.array([True, False]), shaping=shaping, **floats_of)
    episode = replace(ROW, episode=EpisodeRecord((answered, EpisodeTurn(1, "4", 1.0)), "time-out: 5 s"))
    wrote = [ROW, without_critic, partial, left_out, failed, graded, with_columns, learnt, episode]
    path = write_step(tmp_path / "rollouts", 12, wrote)
    assert path == tmp_path / "rollouts" / "step-000012.parquet"
    read = read_step(path)
    for expected, got in zip(wrote, read, strict=True):
        assert_equal_rows(expected, got)


def test_what_json_has_no_form_for_is_written_as_text(tmp_path: Path) -> None:
    path = write_step(tmp_path, 1, [replace(ROW, prompt_row={"asked": date(2026, 11, 30)})])
    assert read_step(path)[0].prompt_row == {"asked": "2026-11-30"}


def test_one_of_before_there_were_episodes_or_rows_is_read(tmp_path: Path) -> None:
    path = write_step(tmp_path, 1, [ROW])
    for later in ([*LEARNT, "clipped", "shaping"], ["episode"], ["teacher_logprobs"], ["prompt_row", "failures"]):
        pq.write_table(pq.read_table(path).drop_columns(later), path)
        assert_equal_rows(read_step(path)[0], ROW)


def test_one_of_before_there_were_teachers_is_read(tmp_path: Path) -> None:
    row = replace(ROW, prompt_row={"answer": "72"}, failures={"judge": "time-out"})
    path = write_step(tmp_path, 1, [row])
    pq.write_table(pq.read_table(path).drop_columns(["teacher_logprobs"]), path)
    assert_equal_rows(read_step(path)[0], row)


def test_other_tools_read_it(tmp_path: Path) -> None:
    table = pq.read_table(write_step(tmp_path, 3, [ROW]))
    assert table["step"].to_pylist() == [3]
    assert table["rewards"].to_pylist() == [[("model", 1.25), ("length", -0.1)]]
    assert table.schema.field("logprobs").type == pa.list_(pa.float32())
    assert pq.ParquetFile(tmp_path / "step-000003.parquet").metadata.row_group(0).column(0).compression == "ZSTD"


def test_steps_are_read_in_order_and_leftovers_are_passed_over(tmp_path: Path) -> None:
    for step in (10, 2):
        write_step(tmp_path, step, [replace(ROW, seed=step)])
    (tmp_path / ".step-000011.parquet.77").write_bytes(b"half")
    assert [(step, row.seed) for step, row in read_journal(tmp_path)] == [(2, 2), (10, 10)]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_step(tmp_path, 1, [ROW])

    def full_disk(table: pa.Table, path: Path, compression: str) -> None:
        path.write_bytes(b"PAR1")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal.pq, "write_table", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_step(tmp_path, 1, [replace(ROW, seed=7)])
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001.parquet"]
    assert read_step(tmp_path / "step-000001.parquet")[0].seed == 2**40


def test_steps_past_a_million_come_after_those_before(tmp_path: Path) -> None:
    for step in (1_000_000, 999_999, 2):
        write_step(tmp_path, step, [ROW])
    assert [step for step, _ in read_journal(tmp_path)] == [2, 999_999, 1_000_000]


def test_a_file_is_on_the_disk_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = record_disk_calls(monkeypatch)
    write_step(tmp_path / "rollouts", 1, [])
    unfinished = f".step-000001.parquet.{os.getpid()}"
    written = [("fsync", unfinished), ("replace", "step-000001.parquet"), ("fsync", "rollouts")]
    assert calls == [("fsync", tmp_path.name), *written]


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="p1: versions has 1 entries for a response of 2 tokens"):
        replace(ROW, versions=np.array([3], np.int32))


def test_an_unknown_reason_to_drop_is_refused() -> None:
    with pytest.raises(ValueError, match="p1: dropped 'bored' is none of"):
        replace(ROW, dropped="bored")  # type: ignore[arg-type]


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "step-000004.parquet"
    path.write_bytes(b"not parquet")
    with pytest.raises(UserError, match=r"step-000004\.parquet: cannot be read as Parquet"):
        read_step(path)
    pq.write_table(pa.table({"prompt": ["a"]}), path)
    with pytest.raises(UserError, match="is not a journal of rollouts"):
        read_step(path)
