"""What rules make of responses, opened as a run opens them."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from plumbob.configs.settings.rules.reward_rules import RulePart
from plumbob.reward.open_part import part_opening
from plumbob.reward.scorer import Score, Scorer, ScoreRequest

_PART: TypeAdapter[RulePart] = TypeAdapter(RulePart)


def rule_scorer(kind: str, **settings: Any) -> Scorer:
    opening = part_opening(_PART.validate_python({"kind": kind, **settings}), None)
    opening.check()
    return opening.open("cpu")


def score_of(scorer: Scorer, response: str, row: Mapping[str, Any] | None = None) -> Score:
    (score,) = scorer.score([ScoreRequest("the prompt", response, row or {})])
    return score


def value_of(kind: str, response: str, row: Mapping[str, Any] | None = None, **settings: Any) -> float:
    """The value of one response, which must not fail."""
    score = score_of(rule_scorer(kind, **settings), response, row)
    assert score.parts == score.failures == {}
    return score.total
