"""A kind of part of the reward is a variant of the settings and a module of its name: both, and nothing else."""

import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import get_args, get_type_hints

from plumbob.configs.settings.rewards import OwnReward
from plumbob.reward.open_part import part_modules
from plumbob.reward.scorer import Opening
from tests.support.source_tree import ORDER, ROOT

VARIANT = """

class CapitalsPart(PartSettings):
    \"\"\"How many of some letters a response has.\"\"\"

    kind: Literal["loud-letters"] = "loud-letters"
    letters: str
    \"\"\"That count.\"\"\"


PlainPart = EnvironmentPart | CapitalsPart
"""
MODULE = '''"""The part `loud-letters`: how many of some letters a response has."""

from collections.abc import Sequence
from pathlib import Path

from plumbob.configs.settings.reward_parts import CapitalsPart
from plumbob.core.errors import UserError
from plumbob.reward.scorer import Opening, Score, ScoreRequest


class CapitalsScorer:
    def __init__(self, part: CapitalsPart) -> None:
        self._letters = part.letters

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        return [Score(float(sum(letter in self._letters for letter in one.response)), {}) for one in requests]


def opening(part: CapitalsPart, folder: Path | None) -> Opening:
    def check() -> None:
        if not part.letters:
            raise UserError("loud-letters: give letters")

    return Opening(check, lambda device: CapitalsScorer(part))
'''
USE = """
from plumbob.configs.load_run import load_run
from plumbob.core.errors import UserError
from plumbob.reward.open_scorer import check_reward, open_scorer
from plumbob.reward.scorer import ScoreRequest

def reward(letters):
    parts = "reward.parts=[{kind: loud-letters, letters: '%s', weight: 2}, {kind: contains, texts: [C]}]" % letters
    return load_run("ppo", ["policy.model=m", "data.prompts=p.jsonl", "reward.model=null", parts]).reward.reward

check_reward(reward("AB"))
(score,) = open_scorer(reward("AB"), "cpu").score([ScoreRequest("q", "ABBAC")])
print(score.total, dict(score.parts))
try:
    check_reward(reward(""))
except UserError as error:
    print(error)
"""


def python(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_variant_has_its_module_and_no_module_lacks_its_variant() -> None:
    """And the function of each takes its own variant alone: what a module found by name keeps from mypy."""
    variants = {str(one.model_fields["kind"].default): one for one in get_args(OwnReward)}
    assert set(variants) == set(part_modules()) >= {"code", "environment", "http", "llm-judge", "json"}
    for kind, name in part_modules().items():
        hints = get_type_hints(import_module(name).opening)
        assert hints == {"part": variants[kind], "folder": Path | None, "return": Opening}, kind


def test_of_the_modules_that_alone_is_imported_whose_kind_is_asked_for() -> None:
    code = """
import sys
from plumbob.configs.settings.rules.reward_rules import ContainsRule
from plumbob.reward.open_part import part_opening
part_opening(ContainsRule(texts=("a",)), None).check()
found = sorted(name for name in sys.modules if name.startswith("plumbob.reward.parts."))
print(found, [heavy for heavy in ("httpx", "jsonschema", "math_verify", "transformers") if heavy in sys.modules])
"""
    assert python(code, ROOT) == "['plumbob.reward.parts.rules', 'plumbob.reward.parts.rules.contains_part'] []\n"


def test_a_new_kind_touches_its_variant_and_its_file(tmp_path: Path) -> None:
    """In a copy of the source, to which these two are written and nothing else, a run's settings name it: it scores.

    Of ABBAC the letters A and B are 4, at weight 2; and it contains C: 2 * 4 + 1 = 9.
    """
    for folder in (*ORDER, "plumbob"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)  # By which `plumbob` knows a checkout.
    with (tmp_path / "configs/settings/reward_parts.py").open("a", encoding="utf-8") as settings:
        settings.write(VARIANT)
    (tmp_path / "reward/parts/loud_letters_part.py").write_text(MODULE, encoding="utf-8")
    assert python(USE, tmp_path).splitlines() == [
        "9.0 {'loud-letters': 4.0, 'contains': 1.0}",
        "loud-letters: give letters",
    ]
