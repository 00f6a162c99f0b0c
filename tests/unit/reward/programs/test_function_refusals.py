"""A function that cannot be a reward is refused before anything starts."""

import os
import time
from pathlib import Path

import pytest

from plumbob.configs.settings.programs.reward_programs import FunctionPart
from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.core.errors import UserError
from plumbob.reward.open_scorer import check_reward, open_scorer
from plumbob.reward.programs import function_process
from plumbob.reward.scorer import Score, ScoreRequest
from tests.support.score_functions import function_part, write_function

REFUSED = {
    "def scores(prompt, response): return 1.0": "has no score; its functions: scores",
    "score = 1.0": "score in {0}/my_reward.py is no function but of type float",
    "class score: pass": "score in {0}/my_reward.py is no function but of type class",
    "def score(prompt, response): yield 1.0": "score in {0}/my_reward.py yields its values; it is to return them",
    "async def score(prompt, response): yield 1.0": "yields its values; it is to return them",
    "def score(response): return 1.0": "score(response) takes other arguments; expected score(prompt, response, row)",
    "def score(a, b, c, d): return 1.0": "score(a, b, c, d) takes other arguments",
    "def score(prompt, response, *, rows): return 1.0": "score(prompt, response, *, rows) takes other arguments",
    "def score(:": "cannot be imported\n",
    "import no_such_package": "ModuleNotFoundError: No module named 'no_such_package'",
    "def score(prompt, response): return 1.0\nraise KeyError('x')": "line 2, in <module>\n      raise KeyError('x')",
    "import os; os._exit(4)": "its process ended as it was imported, with status 4",
}


def refusal(part: FunctionPart) -> str:
    """Of a check, which says the same as opening it."""
    reward = ScorerSettings(parts=(part,)).reward
    with pytest.raises(UserError) as refused:
        check_reward(reward)
    with pytest.raises(UserError) as again:
        open_scorer(reward, "cpu")
    assert str(again.value) == str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("body", REFUSED)
def test_what_is_no_reward_function(body: str, tmp_path: Path) -> None:
    said = refusal(function_part(tmp_path, body))
    assert said.startswith(f"function={tmp_path}/my_reward.py:score: ")
    assert REFUSED[body].format(tmp_path) in said


def test_what_is_not_there(tmp_path: Path) -> None:
    assert "there is no such file" in refusal(FunctionPart(function=f"{tmp_path}/gone.py:score"))
    for module in ("no_such_package", "no_such_package.below", "json.no_such_module", "math"):
        said = refusal(FunctionPart(function=f"{module}:score"))
        assert f"no Python source of a module {module} is installed here" in said


def test_an_import_that_never_ends_is_refused_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_process, "START_TIMEOUT_S", 1.0)
    began = time.monotonic()
    assert "its import takes more than 1 s" in refusal(function_part(tmp_path, "import time\ntime.sleep(600)"))
    assert time.monotonic() - began < 20


def test_a_good_one_is_imported_in_the_check_and_called_by_nobody(tmp_path: Path) -> None:
    body = """
        import os
        open("imported", "a").write(f"{os.getpid()}\\n")
        def score(prompt, response, row):
            open("called", "w")
            return 1.0
        """
    reward = ScorerSettings(parts=(function_part(tmp_path, body, weight=2.0, name="mine"),)).reward
    check_reward(reward)
    (pid,) = (tmp_path / "imported").read_text().split()
    assert int(pid) != os.getpid() and not (tmp_path / "called").exists() and not Path(f"/proc/{pid}").exists()
    assert open_scorer(reward, "cpu").score([ScoreRequest("q", "r")]) == [
        Score(2.0, {"mine": 1.0}, weighted={"mine": 2.0})
    ]
    assert len((tmp_path / "imported").read_text().split()) == 2


def test_a_failure_is_known_by_the_parts_name(tmp_path: Path) -> None:
    part = FunctionPart(
        function=write_function(tmp_path, "def score(prompt, response): return None"), on_failure=-1, name="mine"
    )
    (found,) = open_scorer(ScorerSettings(parts=(part,)).reward, "cpu").score([ScoreRequest("q", "r")])
    assert (found.total, found.failures) == (-1.0, {"mine": "no value: it gave None"})
