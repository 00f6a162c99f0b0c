"""Mail addresses, phones, cards, accounts and addresses of machines, by presidio's recognisers with their checksums."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from plumbob.data.personal.personal_span import PersonalKind, PersonalSpan

PHONE_WORD = re.compile(r"(?i)\b(?:phone|telephone|tel|mobile|cell|call|dial|whatsapp|sms|fax|reach|number)\b")
WORD_BEFORE = 40
"""Characters before bare digits in which a word must say that they are a phone number."""

REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "IN", "AU", "BR")
"""Whose national numbers are known; with a + in front those of every region are."""


@dataclass(frozen=True)
class _NumberFinder:
    """A recogniser, and what a text must have for it to be asked: most have nothing of the kind."""

    kind: PersonalKind
    hint: re.Pattern[str]
    recogniser: Any

    def found_in(self, text: str) -> Iterator[PersonalSpan]:
        if not self.hint.search(text):
            return
        for one in self.recogniser.analyze(text, self.recogniser.supported_entities):
            if one.score > 0:
                yield PersonalSpan(self.kind, one.start, one.end, text[one.start : one.end])


def number_finders() -> tuple[Callable[[str], Iterator[PersonalSpan]], ...]:
    """One for each kind. ImportError where presidio is not installed. Nothing is fetched."""
    from presidio_analyzer.predefined_recognizers import (
        CreditCardRecognizer,
        EmailRecognizer,
        IbanRecognizer,
        IpRecognizer,
        MacAddressRecognizer,
        PhoneRecognizer,
    )
    from tldextract import TLDExtract

    suffixes = TLDExtract(cache_dir=None, suffix_list_urls=())

    class OfflineEmailRecognizer(EmailRecognizer):
        """By the list of suffixes that the package has: presidio's own asks the network for a newer one."""

        def validate_result(self, pattern_text: str) -> bool:
            person, _, domain = pattern_text.rpartition("@")
            return "/" not in person and suffixes(domain).fqdn != ""

    finders = (
        _NumberFinder("mail", re.compile("@"), OfflineEmailRecognizer()),
        _NumberFinder("iban", re.compile(r"[A-Z]{2}\d{2}"), IbanRecognizer()),
        _NumberFinder("card", re.compile(r"(?:\d[ -]?){12}"), CreditCardRecognizer()),
        _NumberFinder("mac", re.compile(r"[0-9A-Fa-f]{2}[:-][0-9A-Fa-f]{2}|[0-9A-Fa-f]{4}\."), MacAddressRecognizer()),
        _NumberFinder("ip", re.compile(r"\d\.\d|[0-9A-Fa-f]:[0-9A-Fa-f:]"), IpRecognizer()),
    )
    phones = _NumberFinder("phone", re.compile(r"(?:\d[\s()./-]{0,3}){7}"), PhoneRecognizer(supported_regions=REGIONS))

    def phones_in(text: str) -> Iterator[PersonalSpan]:
        return (span for span in phones.found_in(text) if _is_phone(text, span))

    return (*(finder.found_in for finder in finders), phones_in)


def _is_phone(text: str, span: PersonalSpan) -> bool:
    """Bare digits may be any number: a word before them must say what they are."""
    if not span.text.isdigit():
        return True
    return PHONE_WORD.search(text[max(0, span.start - WORD_BEFORE) : span.start]) is not None
