"""What scores responses: text in, one score a response out. A scorer knows nothing of the policy's tokens."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from plumbob.core.errors import RunFailed
from plumbob.rollout.rollout_records import Rollout, RowLocation


@dataclass(frozen=True)
class ScoreRequest:
    """One response to be scored.

    Attributes:
        prompt: the text that the policy saw, chat template applied.
        response: what it wrote, as text without special tokens.
        row: the row of the prompt's file, by its columns; empty where no part of the reward reads it.
        form_prompts: reward model, by its name -> the prompt in the form of dialogue that it was trained on; one that
            is not there reads what the policy does.
        episode_reward: what an environment gave for it; None where none took part.
        location: where the response is, which is not here: `response` is empty then; None where it is.
    """

    prompt: str
    response: str
    row: Mapping[str, Any] = field(default_factory=dict, hash=False)
    form_prompts: Mapping[str, str] = field(default_factory=dict, hash=False)
    episode_reward: float | None = None
    location: RowLocation | None = None

    def pair_for(self, model: str) -> tuple[str, str]:
        """(prompt, response) for a reward model, by its name."""
        return self.form_prompts.get(model, self.prompt), self.response


@dataclass(frozen=True)
class Score:
    """What one response earns.

    Attributes:
        total: what the learner is given.
        parts: name -> number behind the total, for the rollout log.
        failures: part -> why it could not score this response, which was given the score that the user chose for that.
        weighted: of a weighted sum, part -> its weight times its value; empty where the total is one thing.
        shut_gate: the part by which such a sum became 0; None where it did not.
    """

    total: float
    parts: Mapping[str, float]
    failures: Mapping[str, str] = field(default_factory=dict, hash=False)
    weighted: Mapping[str, float] = field(default_factory=dict, hash=False)
    shut_gate: str | None = None


class ScoreError(RunFailed):
    """A score is NaN or infinite.

    Attributes:
        rows: which of the responses that were given caused it, 0-based.
    """

    def __init__(self, message: str, rows: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.rows = rows


def finite_scores(raw: Sequence[float], requests: Sequence[ScoreRequest]) -> list[float]:
    """The same raw scores of a reward model. ScoreError where one is NaN or infinite."""
    broken = tuple(row for row, reward in enumerate(raw) if not math.isfinite(reward))
    if broken:
        first = requests[broken[0]]
        raise ScoreError(
            f"the reward model's score is not finite for {len(broken)} responses; the first is "
            f"{first.response[:80]!r} to ...{first.prompt[-80:]!r}",
            broken,
        )
    return list(raw)


def with_texts(requests: Sequence[ScoreRequest], parts: Sequence[Sequence[Rollout]]) -> list[ScoreRequest]:
    """The requests with the responses that were elsewhere; of their locations, `part` is a number in `parts`."""
    return [
        request
        if request.location is None
        else replace(request, response=parts[request.location.part][request.location.row].response, location=None)
        for request in requests
    ]


def by_number(requests: Sequence[ScoreRequest]) -> tuple[list[ScoreRequest], list[Any]]:
    """The requests with parts by number, as `with_texts` takes them, and these parts."""
    numbers: dict[Any, int] = {}
    numbered = [
        request
        if request.location is None
        else replace(
            request, location=RowLocation(numbers.setdefault(request.location.part, len(numbers)), request.location.row)
        )
        for request in requests
    ]
    return numbered, list(numbers)


class Scorer(Protocol):
    """Scores responses, each by itself: a response's score does not depend on what is scored beside it."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Scores in the order of the requests."""


class Unrewarded:
    """A scorer where there is no reward: each response's total is 0."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        return [Score(0.0, {})] * len(requests)


@dataclass(frozen=True)
class Opening:
    """How a reward becomes a scorer.

    Attributes:
        check: what can be told before anything is loaded; raises UserError.
        open: device -> the scorer, its models loaded; raises UserError.
        check_row: a prompt's row, without which or by which a response could not be scored; raises RowError.
    """

    check: Callable[[], None]
    open: Callable[[str], Scorer]
    check_row: Callable[[Mapping[str, Any]], Any] = lambda row: None
