"""A row of the benchmark that is really measured, and one that cannot be."""

import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import chosen, measured_rows
from benchmarks.limit.limit_rows import LIMITS
from benchmarks.material import Material
from benchmarks.plumbob_run import SideError, run_process
from benchmarks.rows import DEFAULT, PeerComparison, every_comparison


def test_a_row_that_cannot_be_measured_has_no_ratio_and_says_why(tmp_path: Path) -> None:
    missing = PeerComparison("dpo", "package:no_such_package_of_models", 2, 8)
    rows = measured_rows(missing, Material(tmp_path, None), tmp_path, 1)
    assert [(row.ratio, row.target) for row in rows] == [(None, 2.0), (None, 1.4)]
    assert all("no_such_package_of_models is not installed" in row.reason for row in rows)


def test_a_side_that_fails_leaves_the_last_line_that_it_printed(tmp_path: Path) -> None:
    with pytest.raises(SideError, match=r"^status 1: the reason$"):
        run_process([sys.executable, "-c", "print('before'); raise SystemExit('the reason\\n')"], tmp_path)
    assert (tmp_path / "printed.txt").read_text().startswith("before")


def test_rows_are_chosen_by_patterns() -> None:
    assert [each if isinstance(each, str) else each.name for each in chosen(["dpo-3m-*", LIMITS[0]], False)] == [
        "dpo-3m-f32",
        "dpo-3m-bf16",
        LIMITS[0],
    ]
    assert chosen([], False) == [*DEFAULT, *LIMITS]
    with pytest.raises(SystemExit, match="no row is called dop-\\*"):
        chosen(["dop-*"], False)


@pytest.mark.cluster
def test_a_tiny_row_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    rows = measured_rows(every_comparison()["dpo-tiny-f32"], Material(tmp_path, None), tmp_path, 1)
    assert [row.reason for row in rows] == ["", ""]
    assert [row.name for row in rows] == ["dpo-tiny-f32 / defaults", "dpo-tiny-f32 / best"]
    defaults, best = rows
    assert best.peer >= defaults.peer > 0 and best.plumbob == defaults.plumbob > 0
    assert best.ratio == best.plumbob / best.peer
    assert "learn" in best.note and "TRL" in best.note
