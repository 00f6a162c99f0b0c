"""The command line: exit statuses, messages without a traceback, JSON for scripts, a quick --help."""

import json
import logging
import os
import resource
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.resolved_copy import write_resolved
from plumbob.configs.runs import EvalRun
from plumbob.console.cli import main
from plumbob.console.commands.doctor import examine, package_check
from plumbob.core.errors import RunFailed, RunPreempted, RunStopped
from plumbob.data.rendered_rows import RenderedRow, RowPart
from plumbob.driver.run_folder.folder import run_folder
from plumbob.trainers.metrics.step_record import Listener, StepRecord

PPO = ["ppo", "policy.model=sft", "reward.model=rm", "data.prompts=prompts.jsonl"]
SUMMARY = {"name": "ppo", "seconds_total": 2.0, "stages": {"ppo": {"reward": 0.5, "seconds": 2.0}}}


@dataclass(frozen=True)
class EndedRun:
    folder: Path
    summary: dict[str, Any]
    was_finished: bool = False


@dataclass(frozen=True)
class Planned:
    fits: bool
    rows = (RenderedRow("data.prompts", 2, (RowPart("prompt", "Hi\n", False, 3),)),)

    def lines(self) -> list[str]:
        return ["1 learner, 0.5 CPUs"]

    def as_dict(self) -> dict[str, object]:
        return {"learners": 1}


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Puts functions in the place of those that start Ray; runs stand below tmp_path."""
    monkeypatch.chdir(tmp_path)

    def install(**functions: Callable[..., object]) -> None:
        module = types.ModuleType("plumbob.driver.api")
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, "plumbob.driver.api", module)

    return install


def finish(config: Any, listener: Listener) -> EndedRun:
    folder = Path(config.storage.path) / config.name
    write_resolved(config, folder)
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    listener.stage_began("ppo")
    listener.stepped(StepRecord("ppo", 1, 1, {"reward": 0.5}, {}))
    return EndedRun(folder, SUMMARY)


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
        (["run", *PPO, "ppo.num_stpes=3"], "ppo.num_stpes: unknown key; did you mean ppo.num_steps?"),
        (["run", *PPO, "ppo.num_steps=many"], "ppo.num_steps: expected a whole number, found the text 'many'"),
        (["run", "pop"], "pop: unknown preset; did you mean ppo?"),
        (["run", "bad.yaml"], "bad.yaml, line 2, column 5: this is not valid YAML"),
        (["plan", *PPO, "ppo.minibatch_size=5"], "cannot be cut into minibatches of ppo.minibatch_size=5"),
        (["run", *PPO, "learner.num_workers=3"], "cannot be shared equally by learner.num_workers=3"),
        (["run", *PPO, "ppo.max_staleness=1", "ppo.importance.kind=none"], "importance.kind=truncated or masked"),
        (["plan", "--json", *PPO, "policy.tuning.dropout=0.1"], "set policy.tuning.dropout=0"),
        (["eval", "reward.model=rm"], "nothing to measure: give data.pairs=FILE"),
        (["eval", *PPO], "ppo: kind is ppo, expected eval; start that with: plumbob run ppo"),
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


def error_in(out: str) -> dict[str, Any]:
    """What a script is told, which is one line."""
    (line,) = out.splitlines()
    error: dict[str, Any] = json.loads(line)
    return error


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


def test_the_hubs_own_lines_are_kept_from_the_user() -> None:
    """It warns of each of its tries to reach a name."""
    code = (
        "from plumbob.console.cli import main\nmain(['report', 'none'])\n"
        "import huggingface_hub\nprint(huggingface_hub.logging.get_verbosity())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_VERBOSITY"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == f"{logging.ERROR}\n"


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


def test_a_run_that_fails_ends_with_status_1(launched: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object) -> None:
        raise RunFailed("the loss of step 3 is not finite; the last checkpoint is step 2")

    launched(run=fail)
    assert main(["run", *PPO]) == 1
    expected = "the run failed: the loss of step 3 is not finite; the last checkpoint is step 2"
    assert capsys.readouterr() == ("", f"plumbob: {expected}\n")
    assert main(["run", *PPO, "--json"]) == 1
    assert error_in(capsys.readouterr().out) == {"event": "error", "error": expected, "exit_code": 1}


def test_an_interrupted_run_says_how_to_go_on(
    launched: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(config: Any, listener: Listener) -> None:
        finish(config, listener)
        raise KeyboardInterrupt

    launched(run=interrupt, resume=lambda folder, listener, overrides: EndedRun(folder, {**SUMMARY, "name": overrides}))
    assert main(["run", *PPO, "name=mine"]) == 130
    advice = "resume from the last checkpoint with: plumbob resume runs/mine"
    assert capsys.readouterr().err.endswith(f"{advice}\n")
    assert main(["run", *PPO, "name=mine", "--json"]) == 130
    *_, told = capsys.readouterr().out.splitlines()
    assert json.loads(told) == {"event": "error", "error": f"interrupted; {advice}", "exit_code": 130}
    assert main(["resume", "mine"]) == 0
    assert main(["resume", "runs/mine", "--json", "rollout.num_workers=2"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["summary"]["name"] == ["rollout.num_workers=2"]


def test_a_preempted_run_ends_with_a_status_of_its_own_and_one_that_a_person_stopped_with_another(
    launched: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """75 is EX_TEMPFAIL of sysexits.h: a scheduler may start it again, and nobody wanted it to end."""
    for error, status in ((RunPreempted("SIGTERM"), 75), (RunStopped("asked to"), 130)):

        def stop(config: Any, listener: Listener, error: RunStopped = error) -> None:
            raise error

        launched(run=stop)
        assert main(["run", *PPO]) == status
        assert capsys.readouterr().err == f"plumbob: {error}\n"
        assert main(["run", *PPO, "--json"]) == status
        assert error_in(capsys.readouterr().out) == {"event": "error", "error": str(error), "exit_code": status}


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


def test_a_run_interrupted_before_it_left_anything_has_nothing_to_resume(
    launched: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    launched(run=interrupt)
    assert main(["run", *PPO]) == 130
    assert capsys.readouterr().err == "plumbob: interrupted\n"


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


def test_doctor_tells_versions_apart() -> None:
    assert package_check("pydantic", ">=2.14").ok
    old = package_check("pydantic", ">=99")
    assert (old.ok, old.advice) == (False, 'run `pip install "pydantic>=99"`')
    missing = package_check("no-such-package-of-ours", ">=1")
    assert (missing.ok, missing.found) == (False, "not installed")


def test_doctor_looks_at_everything_and_every_problem_has_its_mend(tmp_path: Path) -> None:
    checks = examine(tmp_path)
    names = {"python", "torch", "ray", "deepspeed", "peft", "vllm", "device", "memory", "shared memory", "disk"}
    assert names <= {check.name for check in checks}
    assert all(check.ok or check.advice for check in checks)
