"""How much personal data there is of each kind, and in how many texts (PersonalCounts); never what it is."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plumbob.data.personal.personal_finder import personal_finder
from plumbob.data.personal.personal_span import CALLED, KINDS, PersonalKind, PersonalSpan


@dataclass(frozen=True)
class PersonalCounts:
    """Counts over texts.

    Attributes:
        num_rows: texts that have any.
        finds: kind -> how often it was found.
        distinct: kind -> how many different ones those were.
    """

    num_rows: int
    finds: Mapping[PersonalKind, int]
    distinct: Mapping[PersonalKind, int]

    def words(self) -> str:
        """Such as "3 mail addresses, 12 names of people"."""
        return ", ".join(f"{self.finds[kind]} {CALLED[kind]}" for kind in KINDS if self.finds.get(kind))


def counted(found: Sequence[Sequence[PersonalSpan]]) -> PersonalCounts:
    """Of what was found in each text."""
    finds = Counter(span.kind for spans in found for span in spans)
    distinct = Counter(kind for kind, _ in {(span.kind, span.text.lower()) for spans in found for span in spans})
    return PersonalCounts(sum(map(bool, found)), dict(finds), dict(distinct))


def count_personal(texts: Sequence[str]) -> PersonalCounts:
    """UserError where what it needs is not installed."""
    return counted(personal_finder().found_in(texts))
