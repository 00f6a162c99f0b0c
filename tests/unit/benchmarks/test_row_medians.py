"""The arithmetic of the benchmark's table, by hand, and what a row that could not be measured says."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.plumbob_run import read_run
from benchmarks.results_table import BEGIN, END, minutes_today, read_results, text_table, write_document, write_results
from benchmarks.row_medians import Row, compared, not_measured
from benchmarks.small_models import hazard_of, mean_length


def test_a_ratio_is_that_of_the_medians_and_its_spread_that_of_the_repeats() -> None:
    # Medians 20 and 10; the repeats, one by one, 10 / 10, 20 / 8 and 60 / 12.
    row = compared("a", "pairs/s", [10, 20, 60], [10, 8, 12], target=2.0, higher_is_better=True)
    assert (row.plumbob, row.peer, row.ratio, row.spread, row.is_met) == (20, 10, 2.0, (1.0, 5.0), True)


@pytest.mark.parametrize(("seconds", "target", "is_met"), [(11.0, 1.1, True), (11.1, 1.1, False), (11.0, None, None)])
def test_a_limit_is_met_from_below(seconds: float, target: float | None, is_met: bool | None) -> None:
    assert compared("a", "s", [seconds], [10.0], target=target, higher_is_better=False).is_met is is_met


def test_sides_that_were_not_measured_as_often_are_refused() -> None:
    with pytest.raises(ValueError, match="2 measurements against 1"):
        compared("a", "s", [1, 2], [1], target=None, higher_is_better=True)


def test_results_have_what_was_and_what_was_not_measured(tmp_path: Path) -> None:
    rows = [
        compared("dpo / best", "pairs/s", [30.0], [20.0], target=1.4, higher_is_better=True, note="grouped"),
        not_measured("sft / best", "records/s", 1.4, True, "SideError: status 2: no such folder"),
    ]
    write_results(tmp_path / "results.json", rows, "made up", 1.25)
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["rows"][0]["ratio"] == 1.5 and content["rows"][0]["is_met"] is True
    failed = content["rows"][1]
    assert (failed["ratio"], failed["is_met"], failed["reason"]) == (None, None, "SideError: status 2: no such folder")
    (about,) = content["measurements"]
    assert {"date", "hardware", "versions", "minutes"} <= about.keys() and about["versions"]["torch"]
    assert read_results(tmp_path / "results.json")[1] == [replace(row, date=about["date"]) for row in rows]
    document = tmp_path / "performance.md"
    document.write_text(f"before\n{BEGIN}OLDER ROWS\n{END}after\n")
    write_document(document, tmp_path / "results.json")
    text = document.read_text()
    assert text.startswith(f"before\n{BEGIN}") and text.endswith(f"{END}after\n") and "OLDER" not in text
    day = about["date"]
    assert f"| dpo / best | pairs/s | 30 | 20 | 1.5 | 1.5 to 1.5 | ≥ 1.4 | yes | {day} | grouped |" in text
    assert (
        f"| sft / best | records/s | - | - | - | - | ≥ 1.4 | - | {day} | SideError: status 2: no such folder |" in text
    )


def test_rows_that_are_measured_later_take_the_place_of_those_of_their_names(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    first, second = (compared(name, "s", [1.0], [2.0], target=None, higher_is_better=False) for name in ("a", "b"))
    write_results(path, [first, second], "made up", 1.0)
    content = json.loads(path.read_text())
    for each in (*content["measurements"], *content["rows"]):
        each["date"] = "2026-01-02"
    path.write_text(json.dumps(content))
    write_results(path, [replace(first, plumbob=3.0), replace(first, name="c")], "real", 2.0)
    measurements, rows = read_results(path)
    assert [(row.name, row.plumbob, row.date == "2026-01-02") for row in rows] == [
        ("a", 3.0, False), ("b", 1.0, True), ("c", 1.0, False)
    ]  # fmt: skip
    assert [each["data"] for each in measurements] == ["made up", "real"]
    assert minutes_today(path, "real") == 2.0
    write_results(path, [second], "real", 3.0)
    assert [each["minutes"] for each in read_results(path)[0]] == [3.0]


def test_what_was_measured_the_same_day_on_another_machine_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    first, second = (compared(name, "s", [1.0], [2.0], target=None, higher_is_better=False) for name in ("a", "b"))
    write_results(path, [first, second], "real", 4.0)
    content = json.loads(path.read_text())
    content["measurements"][0]["hardware"]["processor"] = "another"
    path.write_text(json.dumps(content))
    assert minutes_today(path, "real") == 0.0  # What this machine has measured.
    write_results(path, [second], "real", 3.0)
    measurements, rows = read_results(path)
    today = measurements[0]["date"]
    assert [(each["date"], each["minutes"]) for each in measurements] == [(today, 4.0), (f"{today} (2)", 3.0)]
    assert [(row.name, row.date) for row in rows] == [("a", today), ("b", f"{today} (2)")]


def test_what_no_phase_took_is_counted_step_by_step() -> None:
    # Of 10, 4 and 5 s the phases took 9, 3.5 and 4.9; the medians' difference, 5 less 4.9, would be another number.
    lines = [
        {"time": 100.0, "seconds": {"learn": 5.0}, "metrics": {}},
        {"time": 110.0, "seconds": {"learn": 9.0}, "metrics": {}},
        {"time": 114.0, "seconds": {"learn": 1.0, "sample": 2.5}, "metrics": {}},
        {"time": 119.0, "seconds": {"learn": 4.9}, "metrics": {}},
    ]
    assert read_run(lines, 90.0).outside_phases_s == 0.5  # Of 1.0, 0.5 and 0.1.


def test_the_tables_columns_stand_below_one_another() -> None:
    first, second, third = text_table(
        [Row("long name", "s", 1, 2, 0.5, None, False), Row("b", "s", 1, 2, 0.5, 1, True)]
    ).split("\n")
    assert first.index("unit") == second.index("s  ") == third.index("s  ")


def test_steps_are_timed_from_end_to_end_without_the_first_and_without_held_out_measurement() -> None:
    lines = [
        {"time": 103.0, "seconds": {"data": 0.5, "learn": 2.0}, "metrics": {}},
        {"time": 105.0, "seconds": {"data": 0.5, "learn": 1.5}, "metrics": {}},
        {"time": 110.0, "seconds": {"data": 0.5, "learn": 1.0, "evaluate": 3.5}, "metrics": {}},
    ]
    run = read_run(lines, began=90.0)
    assert (run.steps, run.first_step_s) == ([2.0, 1.5], 13.0)
    assert run.whole_s == 2.5 + 2.0 + 1.5
    assert run.phase_s("learn") == 1.25


def test_the_hazard_gives_the_mean_length() -> None:
    # h = 1/2 and at most 3 tokens: 1 x 1/2 + 2 x 1/4 + 3 x 1/4 = 1.75.
    assert mean_length(0.5, 3) == pytest.approx(1.75)
    assert hazard_of(1.75, 3) == pytest.approx(0.5)
