"""The examples of programs in docs/rewards.md have the results that stand there."""

import json
import re

import pytest
import yaml

from plumbob.configs.settings.programs.reward_programs import CodePart
from plumbob.core.errors import UserError
from plumbob.reward.programs.code_scorer import CodeScorer
from plumbob.reward.scorer import ScoreRequest
from tests.support.source_tree import ROOT

LINE = re.compile(r"\| `(\{kind: code.*\})` \| `(\{.*\})` \| `(\".*\")` \| ([\d.]+) \|")
EXAMPLES = [
    match.groups()
    for line in (ROOT / "docs/rewards.md").read_text(encoding="utf-8").splitlines()
    if (match := LINE.fullmatch(line))
]


@pytest.mark.parametrize(("part", "row", "response", "value"), EXAMPLES)
def test_an_example_of_a_program(part: str, row: str, response: str, value: str) -> None:
    try:
        scorer = CodeScorer(CodePart.model_validate(yaml.safe_load(part)))
    except UserError as error:
        pytest.skip(str(error))
    (found,) = scorer.score([ScoreRequest("q", json.loads(response), json.loads(row))])
    scorer.close()
    assert found.total == float(value) and not found.failures


def test_there_are_examples_of_both_forms() -> None:
    assert len(EXAMPLES) == 7 and any("stdio" in part for part, *_ in EXAMPLES)
