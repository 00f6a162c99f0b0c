"""The live display, drawn at the widths of real terminals."""

import io
import os
import re
import signal
from dataclasses import replace

import pytest
from rich.console import Console

from plumbob.console.display import choose_listener
from plumbob.console.live_view.live_console import LiveConsole
from plumbob.core.activities import activities
from plumbob.core.errors import RunPreempted
from plumbob.core.process_ends.stop_signals import stop_signals
from plumbob.trainers.metrics.stage_result import StageResult, StageSummary
from plumbob.trainers.metrics.step_record import ResponseSample, StepRecord
from tests.support.terminal import Terminal

PPO = StepRecord(
    "ppo",
    5,
    30,
    {
        **{"reward": 0.523, "reward_std": 0.41, "kl": 2.13, "entropy": 1.214, "answer_tokens_mean": 15.52},
        **{"sampler_gap_max": 8.6e-6, "tokens_per_s": 3456.2, "policy_loss": 0.1},
    },
    {"sample": 2.0, "learn": 3.0},
)
DPO = {"loss": 0.59, "accuracy": 0.775, "margin": 0.83, "tokens_per_s": 12345.0}
HELD_OUT = {"heldout_loss": 0.61, "heldout_accuracy": 0.71, "heldout_margin": 0.5}


@pytest.fixture(autouse=True)
def shown_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plumbob.console.live_view.live_console.SHOWN_AFTER_S", 0.0)


def drawn(display: LiveConsole, width: int) -> list[str]:
    """The lines of the display as it is now, without colours."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, legacy_windows=False)
    with console.capture() as text:
        console.print(display)
    return [line.rstrip() for line in text.get().splitlines()]


def display_of(stage: str, *records: StepRecord) -> LiveConsole:
    display = LiveConsole(io.StringIO())
    display.stage_began(stage)
    for record in records:
        display.stepped(record)
    return display


@pytest.mark.parametrize("width", [30, 49, 50, 80, 140, 250])
def test_it_uses_the_width_and_no_more(width: int) -> None:
    lines = drawn(display_of("ppo", PPO), width)
    assert all(len(line) <= width for line in lines)
    assert lines[0].startswith("ppo")
    # The first step took 5 s by its phases, and 25 are left.
    assert lines[0].endswith("5/30  2 min 05 s left")
    if width >= 50:  # The bar has what "ppo  " and "  5/30  2 min 05 s left" leave, and a sixth of it is done.
        assert len(lines[0]) == width
        assert abs(lines[0].count("━") - (width - 28) / 6) <= 1


def test_a_step_of_ppo_shows_what_matters_at_80_and_at_140_columns() -> None:
    words = ["reward 0.523 ± 0.410", "KL 2.130", "entropy 1.214", "15.5 tokens", "gap 8.6e-06", "3,456 tok/s"]
    assert "  ".join(["", *words]) in drawn(display_of("ppo", PPO), 140)
    narrow = drawn(display_of("ppo", PPO), 80)
    assert narrow[1:3] == ["  ".join(["", *words[:5]]), f"  {words[5]}"]


def test_dpo_shows_accuracy_and_margin_and_the_newest_held_out_figures_with_their_step() -> None:
    display = display_of("dpo", StepRecord("dpo", 4, 40, DPO | HELD_OUT, {}), StepRecord("dpo", 5, 40, DPO, {}))
    assert drawn(display, 80)[1:] == [
        "  loss 0.590  accuracy 77.5%  margin 0.830  12,345 tok/s",
        "  held-out loss 0.610  held-out accuracy 71.0%  held-out margin 0.500  (step 4)",
    ]


def test_before_the_first_step_it_says_what_is_done_and_for_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    display = display_of("ppo")
    with activities.during("rollout worker: starting its engine"):
        began = activities.now()[0].began
        monkeypatch.setattr("time.monotonic", lambda: began + 12.2)
        first, activity = drawn(display, 80)
    assert re.fullmatch(r"ppo  ━+ +12 s", first)
    assert activity == "  rollout worker: starting its engine (12 s)"


def test_what_is_done_before_any_stage_is_shown_too() -> None:
    with activities.during("starting Ray"):
        assert drawn(LiveConsole(io.StringIO()), 80) == ["  starting Ray (0 s)"]


def test_what_passes_in_a_moment_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plumbob.console.live_view.live_console.SHOWN_AFTER_S", 3600.0)
    with activities.during("learner: updating"):
        assert drawn(LiveConsole(io.StringIO()), 80) == []


def test_a_stage_that_has_ended_becomes_a_line_and_leaves_the_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with LiveConsole(terminal) as display:
        display.stage_began("dpo")
        display.notify("dpo", "3 rows of [data] skipped")
        display.stage_ended("dpo", StageSummary(StageResult({"heldout_loss": 0.489}), 3.0, 0.5))
        assert drawn(display, 80) == []
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    assert "dpo: 3 rows of [data] skipped" in lines
    assert re.fullmatch(r"dpo: done in 3\.0 s, held-out loss 0\.489, memory 0\.50 GiB", lines[-1])
    assert text.count("held-out loss") == 1


def test_a_signal_stays_on_the_display_until_the_run_ends_by_it() -> None:
    with pytest.raises(RunPreempted), stop_signals.handled("the run ends its step"):
        stop_signals.work_began()
        os.kill(os.getpid(), signal.SIGTERM)
        assert drawn(display_of("ppo"), 80)[-1] == "SIGTERM: the run ends its step"
        stop_signals.work_ended()
    assert drawn(LiveConsole(io.StringIO()), 80) == []


def test_names_and_rows_cannot_move_the_cursor() -> None:
    terminal = Terminal()
    display = LiveConsole(terminal)
    display.notify("data", "row 3: \x1b[2J\x1b]0;owned\x07 left out")
    assert "\x1b]0" not in terminal.getvalue()
    assert "\x1b[2J" not in terminal.getvalue()
    assert "row 3: \ufffd[2J\ufffd]0;owned\ufffd left out" in terminal.getvalue()


def test_the_seconds_of_a_step_are_a_bar_with_a_piece_a_phase() -> None:
    """2 of 5 s are 9.6 of 24 cells and 3 of 5 s 14.4: 9 and 14, and the one that is left to the larger remainder."""
    (bar,) = (line for line in drawn(display_of("ppo", PPO), 80) if "learn" in line)
    assert bar == f"  {'█' * 14}{'▓' * 10}  █ learn 3.0 s  ▓ sample 2.0 s"
    narrow = drawn(display_of("ppo", PPO), 30)
    assert f"  {'█' * 14}{'▓' * 10}" in narrow and "  █ learn 3.0 s" in narrow


def test_the_phases_that_took_least_are_summed_up() -> None:
    seconds = {"publish": 1.0, "sample": 9.0, "score": 2.0, "learn": 8.0, "commit": 0.5, "logprobs": 3.0}
    text = " ".join(drawn(display_of("ppo", StepRecord("ppo", 1, 9, {}, seconds)), 140))
    assert "█ sample 9.0 s  ▓ learn 8.0 s  ▒ logprobs 3.0 s  ░ score 2.0 s  █ other 1.5 s" in text


def test_a_step_says_what_it_took_of_the_host() -> None:
    """9,000 J are 2.5 Wh; in 300 s they are 30 W."""
    step = StepRecord("ppo", 1, 9, {}, {"sample": 200.0, "learn": 100.0}, joules={"sample": 5000.0, "learn": 4000.0})
    assert "energy 2.5 Wh a step, 30 W" in " ".join(drawn(display_of("ppo", step), 80))
    assert "energy" not in " ".join(drawn(display_of("ppo", PPO), 80))


def test_alarms_stay_as_long_as_they_show_with_the_step_since_which_they_do() -> None:
    steps = [
        StepRecord("ppo", step, 9, {f"alarm_{name}": 1.0 for name in names}, {})
        for step, names in enumerate([["kl"], ["kl", "collapse"], ["collapse"]], start=1)
    ]
    assert drawn(display_of("ppo", *steps[:2]), 80)[1] == "  warning: kl since step 1  warning: collapse since step 2"
    assert drawn(display_of("ppo", *steps), 80)[1:] == ["  warning: collapse since step 2"]


def test_a_sample_response_stands_on_one_line_and_cannot_move_the_cursor() -> None:
    sample = ResponseSample("Who?\nWhat?", "\x1b[2JMe \\o/ " + "x" * 200, 0.52)
    lines = drawn(display_of("ppo", replace(PPO, sample=sample)), 80)
    assert lines[-2] == "  prompt    Who?\\nWhat?"
    assert lines[-1].startswith("  response  (0.520) \\x1b[2JMe \\\\o/ xxx")
    assert len(lines[-1]) == 80 and lines[-1].endswith("…")
    # A step without one leaves the last.
    display = display_of("ppo", replace(PPO, sample=sample), replace(PPO, step=6))
    assert drawn(display, 80)[-2:] == lines[-2:]


def test_the_workers_are_shown_by_what_they_do() -> None:
    display = display_of("ppo", PPO)
    display.workers_changed({"rollout": {"sampling": 2, "idle": 1}, "scorer": {"idle": 1}, "learner": {"": 1}})
    assert drawn(display, 80)[-1] == "  3 rollout workers: 2 sampling, 1 idle  1 scorer: idle  1 learner"


def test_without_unicode_the_pieces_are_of_ascii() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    choose_listener(False, stream)
    console = Console(file=stream, width=80, force_terminal=True, color_system=None)
    console.print(display_of("ppo", PPO))
    stream.flush()
    text = stream.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert "reward 0.523 \\xb1 0.410" in text
    assert f"  {'#' * 14}{'=' * 10}  # learn 3.0 s  = sample 2.0 s" in text


def test_what_libraries_print_meanwhile_passes_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a reset of colours without a line end, which colorama writes to whatever stdout was when it began."""
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with LiveConsole(terminal):
        print("[bold]12[/bold] :smile:\x1b[0m", end="", flush=True)
    assert "[bold]12[/bold] :smile:\x1b[0m" in terminal.getvalue()
