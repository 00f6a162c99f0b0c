"""The examples of rules in docs/rewards.md have the results that stand there."""

import json
import re

import pytest
import yaml

from tests.support.rule_values import value_of
from tests.support.source_tree import ROOT

LINE = re.compile(r"\| `(\{kind: (?!code\b).*\})` \| (?:`(\{.*\})` )?\| `(\".*\")` \| ([\d.]+) \|")
EXAMPLES = [
    match.groups()
    for line in (ROOT / "docs/rewards.md").read_text(encoding="utf-8").splitlines()
    if (match := LINE.fullmatch(line))
]


@pytest.mark.parametrize(("part", "row", "response", "value"), EXAMPLES)
def test_an_example(part: str, row: str | None, response: str, value: str) -> None:
    settings = yaml.safe_load(part)
    assert value_of(response=json.loads(response), row=json.loads(row or "{}"), **settings) == float(value)


def test_all_kinds_have_one() -> None:
    kinds = {yaml.safe_load(part)["kind"] for part, *_ in EXAMPLES}
    assert len(kinds) == 10 and len(EXAMPLES) == 21
