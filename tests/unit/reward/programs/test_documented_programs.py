"""The examples of programs and of a function in docs/rewards.md have the results that stand there."""

import json
import re
from pathlib import Path

import pytest
import yaml

from plumbob.configs.settings.programs.reward_programs import CodePart
from plumbob.core.errors import UserError
from plumbob.reward.programs.code_scorer import CodeScorer
from plumbob.reward.programs.function_scorer import FunctionScorer
from plumbob.reward.scorer import ScoreRequest
from tests.support.score_functions import function_part
from tests.support.source_tree import ROOT

TEXT = (ROOT / "docs/rewards.md").read_text(encoding="utf-8")
LINE = re.compile(r"\| `(\{kind: code.*\})` \| `(\{.*\})` \| `(\".*\")` \| ([\d.]+) \|")
EXAMPLES = [match.groups() for line in TEXT.splitlines() if (match := LINE.fullmatch(line))]


def test_the_document_has_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize(("part", "row", "response", "value"), EXAMPLES)
def test_an_example_of_a_program(part: str, row: str, response: str, value: str) -> None:
    settings = CodePart.model_validate(yaml.safe_load(part))
    try:
        scorer = CodeScorer(settings)
    except UserError as error:
        pytest.skip(str(error))  # This machine has no sandbox.
    (found,) = scorer.score([ScoreRequest("q", json.loads(response), json.loads(row))])
    scorer.close()
    assert found.total == float(value) and not found.failures


def test_there_are_examples_of_both_forms() -> None:
    assert len(EXAMPLES) == 7 and any("stdio" in part for part, *_ in EXAMPLES)


def test_what_the_function_makes_of_responses(tmp_path: Path) -> None:
    (source,) = re.findall(r"```python\n(def score\(prompt: str.*?)```", TEXT, re.DOTALL)
    part = function_part(tmp_path, source, on_failure=0.0)
    lines = re.findall(r'^\| `(\{.*\})` \| `(".*")` \| ([\d.]+) \| (?:`(.*)` )?\|$', TEXT, re.MULTILINE)
    requests = [
        ScoreRequest("Capital of France?", json.loads(response), json.loads(row)) for row, response, *_ in lines
    ]
    found = FunctionScorer(part).score(requests)
    expected = [(float(value), failure or None) for *_, value, failure in lines]
    assert [(score.total, score.failures.get("function")) for score in found] == expected and len(expected) == 4
