"""Which fields of a row are human feedback on responses: pairs with a margin, rankings, and absolute scores.

Prompts and responses have the forms of `data.reading.fields`: texts, or lists of messages.
"""

import math
from collections.abc import Sequence

from plumbob.data.reading.field_values import Fields, listed, shown
from plumbob.data.reading.fields import demonstration_of, pair_of
from plumbob.data.reading.question import QUESTIONS, answered
from plumbob.data.records import Ranking, RowError, ScoredResponse
from plumbob.data.texts.chat_text import RowRender

RANKING_FORMS = "prompt + answers (a list, best first), or prompt + answers + ranks or scores"
SCORE_FORMS = "prompt + answer (or response, completion) + score (or rating)"


def annotated_pair_of(fields: Fields, render: RowRender, use_margin: bool) -> Ranking:
    """A preference pair with its annotator; `use_margin` asks for its `margin`, a number of at least 0."""
    pair = pair_of(fields, render)
    margin = _number(fields, ("margin",), "a preference pair with its margin") if use_margin else 0.0
    if margin < 0:
        raise RowError(f"'margin': expected at least 0, since 'chosen' is the better response, found {margin:g}")
    return Ranking(pair.prompt, (pair.chosen, pair.rejected), margin, _annotator(fields))


def ranking_of(fields: Fields, render: RowRender) -> Ranking:
    """A ranking of two responses or more: `responses` best first, or in any order beside `ranks` (1 is best) or
    `scores`.

    A ranking has no ties: responses of one rank or score are refused.
    """
    _needed(fields, QUESTIONS, RANKING_FORMS)
    given = fields[_needed(fields, ("answers",), RANKING_FORMS)]
    if not isinstance(given, list) or len(given) < 2:
        raise RowError(f"'answers': expected a list of at least two responses, found {shown(given)}")
    found = [demonstration_of(answered(fields, response), render) for response in given]
    order = _best_first(fields, len(given))
    return Ranking(found[0].prompt, tuple(found[index].response for index in order), annotator=_annotator(fields))


def scored_response_of(fields: Fields, render: RowRender) -> ScoredResponse:
    _needed(fields, QUESTIONS, SCORE_FORMS)
    response = _needed(fields, ("answer", "response", "completion"), SCORE_FORMS)
    shown_response = demonstration_of(answered(fields, fields[response]), render)
    score = _number(fields, ("score", "rating"), SCORE_FORMS)
    return ScoredResponse(shown_response.prompt, shown_response.response, score)


def _best_first(fields: Fields, num_responses: int) -> Sequence[int]:
    """Indices of the responses, the best one's first."""
    keys = [name for name in ("ranks", "scores") if name in fields]
    if not keys:
        return range(num_responses)
    if len(keys) == 2:
        raise RowError("expected 'ranks' or 'scores' beside 'answers', found both")
    values = fields[keys[0]]
    if not isinstance(values, list) or len(values) != num_responses or not all(map(_is_number, values)):
        raise RowError(
            f"'{keys[0]}': expected a list of {num_responses} numbers, one a response, found {shown(values)}"
        )
    if len(set(values)) < num_responses:
        raise RowError(f"'{keys[0]}': expected no ties, found {shown(values)}")
    return sorted(range(num_responses), key=lambda index: values[index], reverse=keys[0] == "scores")


def _annotator(fields: Fields) -> str | None:
    name = next((name for name in ("annotator", "annotator_id", "worker") if name in fields), None)
    if name is None:
        return None
    value = fields[name]
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise RowError(f"'{name}': expected a name or a number of the annotator, found {shown(value)}")
    return str(value).encode(errors="backslashreplace").decode()


def _number(fields: Fields, names: tuple[str, ...], forms: str) -> float:
    name = _needed(fields, names, forms)
    value = fields[name]
    if not _is_number(value):
        raise RowError(f"'{name}': expected a finite number, found {shown(value)}")
    return float(value)


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # A whole number of 310 digits or more.
        return False


def _needed(fields: Fields, names: tuple[str, ...], forms: str) -> str:
    """The first of the names that the row has."""
    name = next((name for name in names if name in fields), None)
    if name is None:
        raise RowError(
            f"'{names[0]}' is missing or null: expected {forms}; found the fields {listed(fields) or 'nothing'} "
            f"(data.columns={{{names[0]}: COLUMN}} names another column)"
        )
    return name
