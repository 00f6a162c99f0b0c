"""Requests for a scorer, of prompts and responses."""

from collections.abc import Iterable

from plumbob.reward.scorer import ScoreRequest


def score_requests(pairs: Iterable[tuple[str, str]]) -> list[ScoreRequest]:
    """Of (prompt, response) texts."""
    return [ScoreRequest(prompt, response) for prompt, response in pairs]
