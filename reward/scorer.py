"""What scores responses: text in, one score a response out. A scorer knows nothing of the policy's tokens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from plumbob.core.errors import RunFailed


@dataclass(frozen=True)
class Score:
    """What one response earns.

    Attributes:
        total: what the learner is given.
        parts: name -> number behind the total, for the rollout log.
    """

    total: float
    parts: Mapping[str, float]


class ScoreError(RunFailed):
    """A score is NaN or infinite.

    Attributes:
        rows: which of the responses that were given caused it, 0-based.
    """

    def __init__(self, message: str, rows: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.rows = rows


class Scorer(Protocol):
    """Scores responses, each by itself: a response's score does not depend on what is scored beside it."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """Scores of (prompt, response) texts, in the order given."""


@dataclass(frozen=True)
class Opening:
    """How a reward becomes a scorer.

    Attributes:
        check: what can be told before anything is loaded; raises UserError.
        open: device -> the scorer, its models loaded; raises UserError.
    """

    check: Callable[[], None]
    open: Callable[[str], Scorer]
