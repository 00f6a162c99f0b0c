"""The command line: exit statuses, messages without a traceback, JSON for scripts, a quick --help."""

import json
import logging
import os
import resource
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.resolved_copy import write_resolved
from plumbob.configs.runs import EvalRun
from plumbob.console.cli import COMMANDS, main, parser_of_words
from plumbob.console.command import Command, CommandGroup
from plumbob.data.rendered_rows import RenderedRow, RowPart
from plumbob.driver.run_folder.folder import run_folder
from plumbob.trainers.metrics.step_record import Listener
from tests.support.ended_run import PPO, SUMMARY, error_in, finish


@dataclass(frozen=True)
class Planned:
    fits: bool
    rows = (RenderedRow("data.prompts", 2, (RowPart("prompt", "Hi\n", False, 3),)),)

    def lines(self) -> list[str]:
        return ["1 learner, 0.5 CPUs"]

    def as_dict(self) -> dict[str, object]:
        return {"learners": 1}


def processor_seconds_of_children() -> float:
    """Of processes that have ended: what a command computes, however busy the machine is."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom plumbob.console.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        "print([name for name in ('torch', 'ray', 'transformers', 'pydantic', 'rich', 'numpy') if name in sys.modules])"
    )
    before = processor_seconds_of_children()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert processor_seconds_of_children() - before < 1.0
    assert done.stdout.startswith("usage: plumbob")
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", *PPO, "online.num_stpes=3"], "online.num_stpes: unknown key; did you mean online.num_steps?"),
        (["run", *PPO, "online.num_steps=many"], "online.num_steps: expected a whole number, found the text 'many'"),
        (["run", "pop"], "pop: unknown preset; did you mean ppo?"),
        (["run", "bad.yaml"], "bad.yaml, line 2, column 5: this is not valid YAML"),
        (["plan", *PPO, "online.minibatch_size=5"], "cannot be cut into minibatches of online.minibatch_size=5"),
        (["run", *PPO, "learner.num_workers=3"], "cannot be shared equally by learner.num_workers=3"),
        (["run", *PPO, "online.max_staleness=1", "online.importance.kind=none"], "importance.kind=truncated or masked"),
        (["plan", "--json", *PPO, "policy.tuning.dropout=0.1"], "set policy.tuning.dropout=0"),
        (["eval", "reward.model=rm"], "nothing to measure: give data.pairs=FILE"),
        (["eval", *PPO], "ppo: kind is online, expected eval; start that with: plumbob run ppo"),
        (["resume", "pppo"], "pppo: there is no run in this folder nor in runs/pppo; did you mean ppo?"),
        (["report", "elsewhere"], "there is no run in this folder nor in runs/elsewhere; runs here: ppo"),
    ],
)
def test_a_user_error_is_a_message_and_status_2_before_anything_starts(
    arguments: list[str], message: str, launched: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        pytest.fail("it started")

    launched(run=refuse, resume=refuse, evaluate=refuse, plan=refuse)
    Path("bad.yaml").write_text("kind: [sft\nseed: 1\n")
    write_resolved(load_run(PPO[0], PPO[1:]), Path("runs/ppo"))
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    told = (
        "".join(f"plumbob: {line}\n" for line in error_in(out)["error"].splitlines()) if "--json" in arguments else ""
    )
    assert told == err if told else out == ""
    assert err.startswith("plumbob: ")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [["run"], ["fly"], [], ["run", "toy", "--jsn"], ["doctor", "seed=1"]])
def test_arguments_that_are_none_end_with_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for given in (arguments, [*arguments, "--json"]):
        with pytest.raises(SystemExit) as ended:
            main(given)
        assert ended.value.code == 2
        out, err = capsys.readouterr()
        assert err.startswith("usage: plumbob")
        if "--json" in given:
            told = error_in(out)
            assert (told["event"], told["exit_code"]) == ("error", 2)
            assert err.endswith(f": error: {told['error']}\n")
        else:
            assert out == ""


def test_the_versions_are_printed_without_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    found = dict(line.split(" ", 1) for line in capsys.readouterr().out.splitlines())
    assert found["plumbob"] == version("plumbob") and found["torch"] == version("torch")
    assert {"ray", "deepspeed", "transformers", "peft"} < found.keys()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["eval", "reward.model=rm"], "nothing to measure"),
        (["resume", "absent"], "absent: there is no run"),
        (["report", "absent"], "absent: there is no run"),
        (["status", "absent"], "absent: "),
        (["verify", "nothing-of-that-name"], "no row has nothing-of-that-name in it"),
        (["submit", *PPO, "--render", "slurm"], "--json is for --address only"),
        (["submit", *PPO, "--address", "http://127.0.0.1:9"], "expected an absolute path"),
        (["presets", "toy"], "unrecognized arguments: toy"),
    ],
)
def test_with_json_every_command_tells_a_script_of_an_error_too(
    arguments: list[str],
    error: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status = main([*arguments, "--json"])
    except SystemExit as ended:
        status = ended.code
    told = error_in(capsys.readouterr().out)
    assert error in told["error"]
    assert (told["event"], told["exit_code"], status) == ("error", 2, 2)


def test_a_run_ends_with_its_table_and_its_report(
    launched: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    launched(run=finish)
    assert main(["run", *PPO]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ppo: begins"
    assert lines[-4:] == [
        "stage  reward   time",
        "ppo     0.500  2.0 s",
        "ppo: 2.0 s in all",
        "report: runs/ppo/report.html",
    ]
    assert Path("runs/ppo/report.html").is_file()


def test_a_report_is_written_anew(launched: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    launched(run=finish)
    assert main(["run", *PPO]) == 0
    capsys.readouterr()
    written = Path("runs/ppo/report.html")
    for given, printed in (([], f"{written}\n"), (["--json"], f'{{"report": "{written}"}}\n')):
        written.unlink()
        assert main(["report", "ppo", *given]) == 0
        assert capsys.readouterr().out == printed and written.is_file()


def test_what_libraries_print_by_themselves_is_kept_from_the_user() -> None:
    """The hub's warns of each of its tries to reach a name; transformers draws a bar while it converts a GGUF file."""
    code = (
        "from plumbob.console.cli import main\nmain(['report', 'none'])\n"
        "import huggingface_hub\nprint(huggingface_hub.logging.get_verbosity())\n"
        "from tqdm.auto import tqdm\nprint(list(tqdm(range(2), desc='a bar')))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_HUB_", "TQDM_"))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == f"{logging.ERROR}\n[0, 1]\n" and "a bar" not in done.stderr


@pytest.mark.parametrize("place", [1, 2, 5])
def test_with_json_every_line_is_an_object_wherever_the_option_stands(
    place: int, launched: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    launched(run=finish)
    arguments = ["run", *PPO]
    arguments.insert(place, "--json")
    assert main(arguments) == 0
    *_, step, ended = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert step["event"] == "step"
    assert ended == {"event": "run_ended", "folder": "runs/ppo", "report": "runs/ppo/report.html", "summary": SUMMARY}


def test_a_home_folder_is_written_out_once(
    launched: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of the next run, the run's folder and the advice all mean the same one."""
    monkeypatch.setenv("HOME", str(tmp_path / "me"))

    def interrupt(config: Any, listener: Listener) -> None:
        assert run_folder(config) == finish(config, listener).folder
        raise KeyboardInterrupt

    launched(run=interrupt)
    for name in ("toy", "toy-2"):
        assert main(["run", "toy", "storage.path=~/runs"]) == 130
        assert capsys.readouterr().err.endswith(f"plumbob resume {tmp_path}/me/runs/{name}\n")
    assert sorted(path.name for path in (tmp_path / "me/runs").iterdir()) == ["toy", "toy-2"]


def test_eval_prints_its_result_alone(launched: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    def evaluate(config: EvalRun, listener: Listener) -> dict[str, object]:
        listener.notify("eval", f"reads {config.data.pairs}")
        return {"accuracy": 0.75, "accuracy_ci95": [0.5, 1.0], "calibration": {"mean": 0.25}}

    launched(evaluate=evaluate)
    given = ["reward.model=rm", "data.pairs=pairs.jsonl"]
    assert main(["eval", "--json", *given]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"accuracy": 0.75, "accuracy_ci95": [0.5, 1.0], "calibration": {"mean": 0.25}}
    assert err == "eval: reads pairs.jsonl\n"
    assert main(["eval", *given]) == 0
    rows = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert rows == [["accuracy", "0.750"], ["accuracy_ci95", "0.500, 1.000"], ["calibration.mean", "0.250"]]


def test_plan_says_whether_the_run_fits(launched: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    launched(plan=lambda config: Planned(fits=config.seed == 0))
    assert main(["plan", *PPO]) == 0
    assert main(["plan", *PPO, "seed=1", "--json"]) == 1
    row = "row      data.prompts, one of 2, as the model sees it:\n  prompt (3 tokens)  Hi\\n\n"
    assert capsys.readouterr().out == f'1 learner, 0.5 CPUs\n{row}{{"learners": 1}}\n'


def every_command() -> list[tuple[str, Command | CommandGroup]]:
    """What is typed for it, and itself; those of a group too."""
    found: list[tuple[str, Command | CommandGroup]] = []
    for command in COMMANDS:
        found.append((command.NAME, command))
        if isinstance(command, CommandGroup):
            found += [(f"{command.NAME} {inner.NAME}", inner) for inner in command.commands]
    return found


@pytest.mark.parametrize(
    ("typed", "command"), every_command(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_has_an_example_in_its_help_that_parses(
    typed: str, command: Command | CommandGroup, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([*typed.split(), "--help"])
    assert capsys.readouterr().out.endswith(f"\nexample: {command.EXAMPLE}\n")
    assert f" {command.NAME} " in f"{command.EXAMPLE} " or isinstance(command, CommandGroup)
    words = shlex.split(command.EXAMPLE)[1:]
    inner = command.commands[0] if isinstance(command, CommandGroup) else command
    assert parser_of_words(words).parse_args(words).command is inner
