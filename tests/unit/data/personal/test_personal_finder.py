"""Personal data that was planted is found, and what only looks so is not."""

import socket

import pytest

pytest.importorskip("presidio_analyzer")

from plumbob.data.personal.personal_counts import counted
from plumbob.data.personal.personal_finder import PersonalFinder, personal_finder
from plumbob.data.personal.personal_span import PersonalSpan, without_overlaps
from plumbob.data.personal.secret_patterns import secrets_in
from tests.support.personal_cases import personal_cases, rates_of


@pytest.fixture(scope="module")
def finder() -> PersonalFinder:
    return personal_finder()


def test_rates_on_planted_cases(finder: PersonalFinder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    cases = personal_cases(16)
    rates = rates_of(cases, finder.found_in([case.text for case in cases]))
    for kind in ("secret", "mail", "iban", "card", "mac", "ip"):
        assert rates[kind].found == rates[kind].planted == 16, kind
        assert rates[kind].right == rates[kind].finds, kind
    # A model of names and a reader of numbers err: the table of docs/stewardship.md says how often.
    for kind in ("phone", "name"):
        assert rates[kind].found >= 0.6 * rates[kind].planted, kind
        assert rates[kind].right >= 0.7 * rates[kind].finds, kind


def test_a_checksum_that_is_wrong_is_no_card_and_no_account(finder: PersonalFinder) -> None:
    # 4111 1111 1111 1111 is 30 by Luhn; with another last digit it is none. DE89... is the example of ISO 13616.
    texts = ["4111 1111 1111 1111", "4111 1111 1111 1112", "DE89 3704 0044 0532 0130 00", "DE88 3704 0044 0532 0130 00"]
    kinds = [[span.kind for span in spans if span.kind in ("card", "iban")] for spans in finder.found_in(texts)]
    assert kinds == [["card"], [], ["iban"], []]


def test_bare_digits_are_a_phone_number_where_a_word_says_so(finder: PersonalFinder) -> None:
    found = finder.found_in(["call me on 2125550143", "x = 2125550143", "(212) 555-0143", ""])
    assert [[span.text for span in spans] for spans in found] == [["2125550143"], [], ["(212) 555-0143"], []]


def test_an_address_of_a_page_is_no_mail_address(finder: PersonalFinder) -> None:
    found = finder.found_in(["see www.example.com/maps/place/@37.3362725", "ask ada@example.com/it", "a@localhost"])
    assert [[span.text for span in spans if span.kind == "mail"] for spans in found] == [[], ["ada@example.com"], []]


def test_names_are_cut_to_the_name(finder: PersonalFinder) -> None:
    (spans,) = finder.found_in(["Yesterday Dr. Grace Hopper's colleague met Barack Obama in Paris."])
    assert [span.text for span in spans] == ["Grace Hopper", "Barack Obama"]
    long = "Yesterday I met Barack Obama in Paris. " * 600
    assert len([span for span in finder.found_in([long])[0] if span.text == "Barack Obama"]) == 600


def test_secrets_by_form_and_by_what_they_are_assigned_to() -> None:
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----"
    texts = {
        f"see {key} above": [key],
        "password = 'tr0ub4dor&3xyz'": ["tr0ub4dor&3xyz"],
        'api_key: "x9f2k3l4m5n6p7q8"': ["x9f2k3l4m5n6p7q8"],
        "password: hunter": [],
        "token = xxxxxxxxxxxx1": [],
        "the secret = understanding": [],
    }
    assert {text: [span.text for span in secrets_in(text)] for text in texts} == texts


def test_of_finds_that_overlap_the_surer_holds() -> None:
    spans = [PersonalSpan("name", 0, 9, "ada@x.com"), PersonalSpan("mail", 0, 9, "ada@x.com"),
             PersonalSpan("name", 10, 13, "Ada"), PersonalSpan("name", 10, 18, "Ada Byron")]  # fmt: skip
    kept = without_overlaps(spans)
    assert [(span.kind, span.text) for span in kept] == [("mail", "ada@x.com"), ("name", "Ada Byron")]
    counts = counted([kept, [], [PersonalSpan("mail", 0, 9, "ADA@x.com")]])
    assert (counts.num_rows, counts.finds, counts.distinct) == (2, {"mail": 2, "name": 1}, {"mail": 1, "name": 1})
    assert counts.words() == "2 mail addresses, 1 names of people"
