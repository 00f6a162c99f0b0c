"""Where a text has personal data, and of which kind (PersonalSpan)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

PersonalKind = Literal["secret", "mail", "iban", "card", "mac", "ip", "phone", "name"]

KINDS: tuple[PersonalKind, ...] = get_args(PersonalKind)
"""Where two finds overlap, the kind that stands first here holds."""

CALLED: dict[PersonalKind, str] = {
    "secret": "keys and tokens",
    "mail": "mail addresses",
    "iban": "accounts (IBAN)",
    "card": "payment cards",
    "mac": "MAC addresses",
    "ip": "IP addresses",
    "phone": "phone numbers",
    "name": "names of people",
}


@dataclass(frozen=True)
class PersonalSpan:
    """Personal data in a text.

    Attributes:
        start, end: characters of the text, the end exclusive.
        text: what stands there.
    """

    kind: PersonalKind
    start: int
    end: int
    text: str


def without_overlaps(spans: Iterable[PersonalSpan]) -> list[PersonalSpan]:
    """In the order of the text; of those that overlap the one whose kind comes first in `KINDS`, then the longest."""
    kept: list[PersonalSpan] = []
    for span in sorted(spans, key=lambda one: (KINDS.index(one.kind), one.start - one.end, one.start)):
        if all(span.end <= other.start or span.start >= other.end for other in kept):
            kept.append(span)
    return sorted(kept, key=lambda one: one.start)
