"""What a rule is: what it compares with, found in the prompt's row, and the value of a text beside that."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


class NotScored(ValueError):  # noqa: N818 - an answer of a rule, which its scorer counts
    """A rule could not value a text within its bounds: why not."""


def nothing(row: Mapping[str, Any]) -> None:
    """What a rule compares with that reads no row."""


@dataclass(frozen=True)
class Rule:
    """A pure function of a text and, for some, of what stands in the prompt's row.

    Attributes:
        value: (text, what it is compared with) -> its value; raises NotScored.
        expected: a row -> what texts are compared with; raises RowError where the row has nothing of the kind.
        check: raises UserError where the rule cannot be used.
    """

    value: Callable[[str, Any], float]
    expected: Callable[[Mapping[str, Any]], Any] = nothing
    check: Callable[[], Any] = lambda: None
