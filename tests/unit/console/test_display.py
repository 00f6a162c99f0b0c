"""What a person or a script sees while a run is running, and the table at its end."""

import io
import json
import math

import pytest

from plumbob.console.display import JsonConsole, PlainConsole, choose_listener, print_summary
from plumbob.console.live_view.live_console import LiveConsole
from plumbob.console.tables import duration, number, summary_table
from plumbob.trainers.metrics.stage_result import StageResult, StageSummary
from plumbob.trainers.metrics.step_record import StepRecord
from tests.support.terminal import Terminal

SUMMARY = {
    "name": "toy",
    "seconds_total": 300.2,
    "stages": {
        "reward": {"heldout_accuracy": 0.701, "noise_ceiling": 0.724, "seconds": 29.6},
        "ppo": {"gold_score": 0.55, "win_rate": 0.71, "win_rate_ci95": [0.66, 0.76], "kl": 3.25, "seconds": 111.0},
    },
}


def step(number_: int, num_steps: int = 20, **metrics: float) -> StepRecord:
    return StepRecord("ppo", number_, num_steps, metrics, {"learn": 0.1})


def test_a_pipe_gets_a_line_each_tenth_of_the_steps() -> None:
    stream = io.StringIO()
    with PlainConsole(stream) as console:
        console.stage_began("ppo")
        console.notify("ppo", "3 rows skipped")
        for number_ in range(1, 21):
            console.stepped(step(number_, reward=0.5, loss=9.0, kl=0.02, tokens_per_s=3456.0))
        console.stage_ended("ppo", StageSummary(StageResult({"gold_score": 0.75}), 3.0, 0.5))
    begun, said, *steps, ended = stream.getvalue().splitlines()
    assert (begun, said) == ("ppo: begins", "ppo: 3 rows skipped")
    # 20 steps: a tenth is 2 steps, so steps 2, 4, ... 20.
    assert [line.split(",")[0] for line in steps] == [f"ppo: step {number_}/20" for number_ in range(2, 21, 2)]
    assert "step 2/20, loss 9.000, reward 0.500, KL 0.020, 3,456 tok/s, " in steps[0]
    assert ended.startswith("ppo: done in ")
    assert ended.endswith("s, gold score 0.750, memory 0.50 GiB")


def test_a_pipe_is_told_held_out_figures_once_with_the_next_line() -> None:
    stream = io.StringIO()
    console = PlainConsole(stream)
    console.stage_began("dpo")
    for number_ in range(1, 21):
        measured = {"heldout_loss": 0.625, "heldout_accuracy": 0.75} if number_ == 5 else {}
        record = StepRecord("dpo", number_, 20, {"loss": 0.5, "accuracy": 0.875, "margin": 1.25, **measured}, {})
        console.stepped(record)
    lines = stream.getvalue().splitlines()
    shown = "loss 0.500, accuracy 87.5%, margin 1.250"
    assert lines[3].startswith(f"dpo: step 6/20, {shown}, held-out loss 0.625, held-out accuracy 75.0%, ")
    assert sum("held-out" in line for line in lines) == 1


def test_a_pipe_gets_no_control_characters() -> None:
    stream = io.StringIO()
    PlainConsole(stream).notify("data", "row 3: \x1b[2J left out")
    assert stream.getvalue() == "data: row 3: \ufffd[2J left out\n"


def test_json_lines_are_strict_json() -> None:
    stream = io.StringIO()
    with JsonConsole(stream) as console:
        console.stage_began("ppo")
        console.stepped(step(1, 2, reward=math.nan))
        console.notify("ppo", "three\nlines")
        console.stage_ended("ppo", StageSummary(StageResult({"ci": (0.25, math.inf)}), 3.0, math.nan))
    lines = [json.loads(line, parse_constant=pytest.fail) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["stage_began", "step", "message", "stage_ended"]
    assert lines[1]["metrics"] == {"reward": None}
    assert lines[1]["seconds"] == {"learn": 0.1}
    assert lines[3]["summary"] == {"ci": [0.25, None], "seconds": 3.0, "peak_memory_gib": None}


def test_the_listener_suits_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(choose_listener(True, Terminal()), JsonConsole)
    assert isinstance(choose_listener(False, Terminal()), LiveConsole)
    assert isinstance(choose_listener(False, io.StringIO()), PlainConsole)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(choose_listener(False, Terminal()), PlainConsole)


def test_the_table_has_a_row_per_stage_and_only_columns_in_use() -> None:
    assert summary_table(SUMMARY) == [
        ["stage", "accuracy", "gold score", "win rate", "KL", "time"],
        ["reward", "70.1% of 72.4%", "", "", "", "30 s"],
        ["ppo", "", "0.550", "71.0% [66.0%, 76.0%]", "3.250", "1 min 51 s"],
    ]
    assert summary_table({}) == [["stage"]]
    stages = {"sft": {"energy": {"wh": 1.2512, "estimated": ["cpu"]}}, "dpo": {"energy": {"wh": 12.0, "estimated": []}}}
    assert summary_table({"stages": stages}) == [["stage", "energy"], ["sft", "1.25 Wh est."], ["dpo", "12 Wh"]]
    retention = {"perplexity_before": 12.25, "perplexity_after": 14.7, "growth": 1.2}
    assert summary_table({"stages": {"sft": {"heldout_loss": 2.5, "retention": retention}}}) == [
        ["stage", "held-out loss", "retained perplexity"],
        ["sft", "2.500", "12.250 to 14.700"],
    ]


def test_a_lone_run_of_grpo_shows_the_rewards_and_the_kl_of_its_training() -> None:
    trained = {"first_train_reward": 0.125, "train_reward": 0.625, "train_kl": 2.5, "max_train_kl": 3.0}
    assert summary_table({"stages": {"ppo": trained}}) == [
        ["stage", "training reward", "training KL"],
        ["ppo", "0.125 to 0.625", "2.500"],
    ]
    # Where held-out prompts were answered too, those say more.
    assert summary_table({"stages": {"ppo": trained | {"reward": 0.5, "kl": 2.0}}}) == [
        ["stage", "reward", "KL"],
        ["ppo", "0.500", "2.000"],
    ]


def test_a_narrow_terminal_gets_a_list_in_place_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    narrow, pipe = Terminal(), io.StringIO()
    print_summary(SUMMARY, narrow)
    print_summary(SUMMARY, pipe)
    assert narrow.getvalue().splitlines()[0] == "reward: accuracy 70.1% of 72.4%, time 30 s"
    assert pipe.getvalue().splitlines()[0].split() == [
        "stage",
        "accuracy",
        "gold",
        "score",
        "win",
        "rate",
        "KL",
        "time",
    ]
    assert narrow.getvalue().splitlines()[-1] == pipe.getvalue().splitlines()[-1] == "toy: 5 min 00 s in all"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.7, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_numbers() -> None:
    values = (1234567.0, 3, 0.12345, 0.0, 1.4e-6, None, True)
    assert [number(value) for value in values] == ["1,234,567", "3", "0.123", "0.000", "1.4e-06", "", ""]
