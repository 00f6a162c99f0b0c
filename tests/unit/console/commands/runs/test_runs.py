"""`plumbob runs`: list, rm and compare, on folders as runs leave them."""

import hashlib
import io
import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plumbob.console.cli import main
from plumbob.console.commands.runs.list_runs import size
from plumbob.rollout.journal import JOURNAL_FOLDER, write_step
from tests.support.ended_run import error_in
from tests.support.finished_run import finished_run, journal_rows
from tests.support.folder_names import names


def write(folder: Path, file: str, content: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(json.dumps(content) + "\n")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run, one that failed, one that is running, one that is damaged, and a folder that is none."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs"
    finished_run(folder / "done", "ppo", {"reward": 0.5, "win_rate": 0.75})
    for name in ("lost", "busy"):
        write(folder / name, "resolved.json", {"config": {"kind": "dpo"}})
        write(folder / name, "status.json", {"stage": "dpo", "step": 3, "num_steps": 9})
    write(folder / "lost", "events.jsonl", {"event": "failed", "why": "a loss that is not finite"})
    (folder / "busy/driver.lock").write_text(f"process {os.getpid()} on {socket.gethostname()} since now\n")
    (folder / "broken").mkdir()
    (folder / "broken/resolved.json").write_text("{")
    (folder / "notes").mkdir()
    for age, name in enumerate(("done", "lost", "busy", "broken")):
        for path in (folder / name).rglob("*"):
            os.utime(path, (1e9 - age, 1e9 - age))
    return folder


def test_a_list_has_the_newest_first_with_state_step_size_and_result(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", "list"]) == 0
    titles, done, lost, busy, broken = (line.split() for line in capsys.readouterr().out.splitlines())
    assert titles == ["name", "kind", "state", "step", "size", "changed", "result"]
    assert done[:3] == ["done", "ppo", "finished"]
    assert done[-5:] == ["reward", "0.500,", "win", "rate", "75.0%"]
    assert lost[:5] == ["lost", "dpo", "failed", "dpo", "3/9"]
    assert lost[-6:] == ["a", "loss", "that", "is", "not", "finite"]
    assert busy[:5] == ["busy", "dpo", "running", "dpo", "3/9"]
    assert broken[:2] == ["broken", "damaged"] and any(word.endswith("resolved.json:") for word in broken)


def test_a_driver_on_another_host_that_is_silent_is_unknown(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = runs / "busy/driver.lock"
    for name in ("busy", "done"):
        (runs / name / "driver.lock").write_text("process 7 on no-such-host since then\n")
    states = []
    for age_s in (0, 3600):
        for path in (lock, runs / "done/driver.lock"):
            os.utime(path, (time.time() - age_s,) * 2)
        assert main(["runs", "list", "--json"]) == 0
        states.append({run["name"]: run["state"] for run in json.loads(capsys.readouterr().out)["runs"]})
    assert [(one["busy"], one["done"]) for one in states] == [("running", "running"), ("unknown", "finished")]
    assert main(["runs", "rm", "busy", "--yes"]) == 2


def test_a_script_gets_the_list_as_one_object(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["runs"]
    assert [(run["name"], run["state"]) for run in found] == [
        ("done", "finished"),
        ("lost", "failed"),
        ("busy", "running"),
        ("broken", "damaged"),
    ]
    lost = runs / "lost"
    assert found[1]["num_bytes"] == sum(path.stat().st_size for path in lost.iterdir())
    assert (found[1]["step"], found[1]["changed"]) == (3, 1e9 - 1)


def test_a_folder_without_runs_says_how_to_begin_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "list", str(tmp_path)]) == 0
    assert "plumbob run toy" in capsys.readouterr().out
    assert main(["runs", "list", str(tmp_path / "absent")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    assert main(["runs", "list", "~nosuchuser/runs"]) == 2
    assert "~nosuchuser/runs: cannot be looked into" in capsys.readouterr().err


@pytest.mark.parametrize(("num_bytes", "shown"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e9, "2.5 GB")])
def test_sizes_are_in_units_of_a_thousand(num_bytes: float, shown: str) -> None:
    assert size(int(num_bytes)) == shown


def test_rm_removes_runs_and_nothing_else(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "rm", "done", "lost", "--yes"]) == 0
    assert capsys.readouterr().out.count("removed") == 2
    assert names(runs) == ["broken", "busy", "notes"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("busy", "a driver is at work on this run"), ("notes", "there is no run"), ("link", "is a link")],
)
def test_rm_refuses_a_running_run_a_link_and_what_is_no_run_before_it_removes_any(
    name: str, message: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "link").symlink_to(runs / "lost")
    assert main(["runs", "rm", "done", name, "--yes"]) == 2
    assert message in capsys.readouterr().err
    assert (runs / "done/summary.json").exists() and (runs / "lost/resolved.json").exists()


def test_rm_asks_a_person_and_is_refused_where_nobody_can_be_asked(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["runs", "rm", "done", "--json"]) == 2
    assert "--yes" in error_in(capsys.readouterr().out)["error"]
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    for answer, is_left in (("n", True), ("", True), ("y", False)):
        monkeypatch.setattr("builtins.input", lambda question, answer=answer: answer)
        assert main(["runs", "rm", "done"]) == 0
        assert (runs / "done").exists() == is_left


def test_the_end_of_the_input_is_no_answer(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of Ctrl-D, at both commands that ask."""
    input_file = io.StringIO("")
    input_file.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", input_file)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for command in (["runs", "rm", "done"], ["init"]):
        assert main(command) == 130
        assert capsys.readouterr().err == "plumbob: interrupted\n"
    assert (runs / "done/summary.json").exists() and not Path("plumbob.yaml").exists()


def journal(folder: Path, shift: float) -> None:
    """8 prompts of 4 responses, whose scores are 0 to 3 and `shift`, of prompt 0 to 7 twice 0.1 more each."""
    rows = journal_rows(1)
    for index, row in enumerate(rows):
        object.__setattr__(row, "score", row.score + shift + 0.01 * (index // 4) * (1 if shift else 2))
    write_step(folder / JOURNAL_FOLDER, 1, rows)


@pytest.fixture
def pair(tmp_path: Path) -> list[str]:
    """Two runs that differ by their learning rate; the second's responses to the same prompts earn about 1 more."""
    for name, rate, shift in (("low", 1e-5, 0.0), ("high", 1e-4, 1.0)):
        folder = tmp_path / name
        config = {"name": name, "kind": "online", "seed": 3, "online": {"learning_rate": rate}}
        write(folder, "resolved.json", {"config": config})
        write(folder, "inputs.json", {"data.prompts": f"{name}-digest"})
        stage = {"win_rate": 0.5 + shift / 100, "win_rate_ci95": [0.4, 0.6], "heldout_loss": 0.5 - shift / 10}
        stage["num_prompts"] = 400
        write(folder, "summary.json", {"stages": {"ppo": stage}})
        journal(folder, shift)
    return [str(tmp_path / "low"), str(tmp_path / "high")]


@pytest.mark.parametrize("command", [["compare"], ["runs", "compare"]])
def test_compare_says_what_was_set_otherwise_and_which_results_differ_by_more_than_the_noise(
    command: list[str], pair: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The mean reward of low is 1.5 + 0.02 x 3.5 = 1.57, of high 2.5 + 0.01 x 3.5 = 2.535: by prompt 1 - 0.01 k."""
    assert main([*command, *pair]) == 0
    shown = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert lines[:4] == ["settings that differ: 1", "online.learning_rate", "low 1e-05", "high 0.0001"]
    assert lines[4:7] == ["data.prompts: what it holds differs", "low low-dige", "high high-dig"]
    rows = dict(zip(lines, lines[2:], strict=False))
    assert rows["win rate"] == "high 0.510 [0.410, 0.610] +0.010 [-0.132, 0.152] within the noise (by both intervals)"
    assert rows["heldout loss"] == "high 0.400 -0.100 noise unknown"
    assert rows["training reward"].startswith("high 2.535 [")
    assert "+0.965 [" in rows["training reward"]
    assert rows["training reward"].endswith("larger than the noise (paired, 8 prompts)")
    assert lines[-1].startswith("larger than the noise: by Holm's procedure")


def test_a_script_gets_the_comparison_as_one_object(pair: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *pair, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"] == {"online.learning_rate": [1e-5, 1e-4]}
    by_name = {metric["metric"]: metric["differences"]["high"] for metric in found["metrics"]}
    assert {name: one["is_larger_than_noise"] for name, one in by_name.items()} == {
        "win_rate": False,
        "heldout_loss": False,
        "training reward": True,
    }
    assert by_name["training reward"]["value"] == pytest.approx(0.965)


def test_a_run_is_not_compared_with_itself(pair: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", pair[0], pair[0]]) == 2
    assert main(["compare", pair[0]]) == 2
    assert capsys.readouterr().err.count("give two runs or more, each once") == 2


def test_evaluations_that_kept_their_responses_are_paired_by_prompt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The policies earn 1, 2, ... 6 and half a point more at each prompt, in two samples; the baseline is another."""
    for name, shift in (("before", 0.0), ("after", 0.5)):
        path = tmp_path / f"{name}.parquet"
        rows = [(f"prompt {n}", n + shift + side) for n in range(1, 7) for side in (-0.25, 0.25)]
        table = {"prompt": [row[0] for row in rows] * 2, "score": [row[1] for row in rows] + [0.0] * 12}
        pq.write_table(pa.table({**table, "policy": ["policy"] * 12 + ["baseline"] * 12}), path)
        config = {"kind": "eval", "evaluation": {"responses_file": str(path)}}
        write(tmp_path / name, "resolved.json", {"config": config})
        stage = {"reward": 3.5 + shift, "responses_digest": hashlib.sha256(path.read_bytes()).hexdigest()}
        write(tmp_path / name, "summary.json", {"stages": {"eval": stage}})
    assert main(["compare", str(tmp_path / "before"), str(tmp_path / "after"), "--json"]) == 0
    metrics = {one["metric"]: one for one in json.loads(capsys.readouterr().out)["metrics"]}
    assert metrics["reward"]["values"]["after"]["value"] == pytest.approx(4.0)
    found = metrics["reward"]["differences"]["after"]
    assert (found["method"], found["num_prompts"], found["value"]) == ("paired", 6, pytest.approx(0.5))
    assert metrics["reward of baseline"]["differences"]["after"]["value"] == 0
