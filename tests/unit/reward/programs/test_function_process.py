"""The process in which a user's function runs: what it sees, where it stands, what it leaves and when it ends."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from plumbob.configs.settings.programs.reward_programs import FunctionPart
from plumbob.core.errors import UserError
from plumbob.reward.programs.function_scorer import FunctionScorer
from plumbob.reward.scorer import Score, ScoreRequest
from tests.support.score_functions import function_part, write_function


def test_it_does_not_see_the_runs_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("SERVICE_KEY", "asked for")
    body = """
        import json, os
        def score(prompt, response):
            raise ValueError(json.dumps(sorted(os.environ)) + os.environ.get("SERVICE_KEY", ""))
        """
    (found,) = FunctionScorer(function_part(tmp_path, body, on_failure=0)).score([ScoreRequest("q", "r")])
    assert "HF_TOKEN" not in found.failures["function"] and '"PATH"' in found.failures["function"]
    part = function_part(tmp_path, body, on_failure=0, environment=("SERVICE_KEY",))
    (found,) = FunctionScorer(part).score([ScoreRequest("q", "r")])
    assert found.failures["function"].endswith("asked for")
    monkeypatch.delenv("SERVICE_KEY")
    with pytest.raises(UserError, match="environment has SERVICE_KEY, which is not set here"):
        FunctionScorer(part)


def test_it_stands_in_its_own_folder_with_its_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/words.txt").write_text("car\n")
    (tmp_path / "mine/helper.py").write_text("WORTH = 7.0")
    monkeypatch.chdir(tmp_path)
    body = """
        import os, sys
        from helper import WORTH
        WORDS = open("words.txt").read().split()
        heavy = {"torch", "numpy", "pydantic", "ray"} & set(sys.modules)
        assert not heavy, heavy
        def score(prompt, response):
            return WORTH if response in WORDS and "my_reward" in sys.modules else 0.0
        """
    found = FunctionScorer(function_part(tmp_path / "mine", body)).score([ScoreRequest("q", "car")])
    assert found == [Score(7.0, {})]


def test_a_file_called_as_a_module_of_python_takes_nothing_from_it(tmp_path: Path) -> None:
    function = write_function(tmp_path, "def score(prompt, response): return 3.0", file="json.py")
    assert FunctionScorer(FunctionPart(function=function)).score([ScoreRequest("q", "r")]) == [Score(3.0, {})]


def test_one_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cars/wheels").mkdir(parents=True)
    (tmp_path / "cars/__init__.py").write_text("WORTH = 4.0")
    (tmp_path / "cars/wheels/__init__.py").touch()
    write_function(
        tmp_path / "cars/wheels", "from .. import WORTH\ndef score(prompt, response): return WORTH", file="round.py"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    scorer = FunctionScorer(FunctionPart(function="cars.wheels.round:score"))
    assert scorer.score([ScoreRequest("q", "r")]) == [Score(4.0, {})]


def test_what_it_prints_is_for_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    body = """
        import os, sys
        print("imported")
        def score(prompt, response):
            print("scoring", response)
            os.write(1, b"raw\\n")
            sys.stdin.read()
            return 1.0
        """
    assert FunctionScorer(function_part(tmp_path, body)).score([ScoreRequest("q", "r")]) == [Score(1.0, {})]
    out, err = capfd.readouterr()
    assert out == "" and err.split("\n") == ["imported", "scoring r", "raw", ""]


def test_what_it_started_ends_with_it_and_its_scratch_is_removed(tmp_path: Path) -> None:
    body = """
        import os, subprocess, tempfile
        def score(prompt, response):
            child = subprocess.Popen(["sleep", "600"])
            handle, name = tempfile.mkstemp()
            raise ValueError(f"{child.pid} {name}")
        """
    scorer = FunctionScorer(function_part(tmp_path, body, on_failure=0.0))
    (found,) = scorer.score([ScoreRequest("q", "r")])
    pid, name = found.failures["function"].removeprefix("ValueError: ").split()
    assert is_alive(int(pid)) and Path(name).exists()
    del scorer
    assert_soon(lambda: not is_alive(int(pid)) and not Path(name).parent.exists())


@pytest.mark.parametrize("lacks", ["python", "a variable"])
def test_of_one_that_does_not_start_nothing_is_left(
    lacks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    wanted = ("NO_SUCH_VARIABLE",) if lacks == "a variable" else ()
    part = function_part(tmp_path, "def score(prompt, response): return 1.0", environment=wanted)
    if lacks == "python":
        (tmp_path / "python").write_text("no program")
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        why = rf"function={tmp_path}/my_reward\.py:score: its process cannot be started: .*Permission denied"
    else:
        why = "environment has NO_SUCH_VARIABLE, which is not set here"
    with pytest.raises(UserError, match=why):
        FunctionScorer(part)
    assert list(scratch.iterdir()) == []


def is_alive(pid: int) -> bool:
    """And no zombie, which waits for its parent alone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def assert_soon(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_ends_with_its_worker(tmp_path: Path) -> None:
    """Killed in the middle of a call that holds the interpreter, with a child of its own."""
    body = """
        import os, re, subprocess
        def score(prompt, response):
            child = subprocess.Popen(["sleep", "600"])
            open("pids", "w").write(f"{os.getpid()} {child.pid} {os.environ['TMPDIR']}")
            os.rename("pids", "all-pids")
            re.match("(a+)+$", "a" * 200 + "b")
        """
    part = function_part(tmp_path, body, timeout_s=600)
    code = (
        "from plumbob.configs.settings.programs.reward_programs import FunctionPart\n"
        "from plumbob.reward.programs.function_scorer import FunctionScorer\n"
        "from plumbob.reward.scorer import ScoreRequest\n"
        f"FunctionScorer(FunctionPart.model_validate_json({part.model_dump_json()!r})).score([ScoreRequest('q', 'r')])"
    )
    worker = subprocess.Popen([sys.executable, "-c", code])
    assert_soon((tmp_path / "all-pids").exists)
    mine, child, scratch = (tmp_path / "all-pids").read_text().split()
    assert is_alive(int(mine)) and is_alive(int(child)) and Path(scratch).is_dir()
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait(20)
    assert_soon(lambda: not (is_alive(int(mine)) or is_alive(int(child)) or Path(scratch).exists()))
