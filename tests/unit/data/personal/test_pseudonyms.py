"""Pseudonyms: the same for the same person, and their key."""

import hashlib
import hmac
from pathlib import Path

import pytest

from plumbob.core.errors import UserError
from plumbob.data.personal.personal_span import PersonalSpan
from plumbob.data.personal.pseudonyms import (
    KEY_VARIABLE,
    Pseudonyms,
    full_names_in,
    one_spelling,
    pseudonym_key,
    strings_of,
    with_strings,
)

KEY = b"0123456789abcdef"


def test_a_pseudonym_is_an_hmac_of_kind_and_value() -> None:
    digest = hmac.new(KEY, b"name\nada lovelace", hashlib.sha256).hexdigest()
    assert Pseudonyms(KEY).of("name", "Ada  LOVELACE") == f"[NAME-{digest[:10]}]"
    assert Pseudonyms(KEY).of("mail", "ada lovelace") != Pseudonyms(KEY).of("name", "ada lovelace")
    assert Pseudonyms(KEY[::-1]).of("name", "Ada Lovelace") != Pseudonyms(KEY).of("name", "Ada Lovelace")


def test_spellings_of_one_thing_are_one() -> None:
    assert one_spelling("phone", "+1 (212) 555-0143") == one_spelling("phone", "212.555.0143") == "125550143"
    assert one_spelling("card", "4111-1111 1111 1111") == "4111111111111111"
    assert one_spelling("iban", "de89 3704") == one_spelling("iban", "DE893704")
    assert one_spelling("secret", "aB") == "aB"


def test_part_of_a_name_is_its_owner_where_there_is_one() -> None:
    def names(*texts: str) -> list[list[PersonalSpan]]:
        return [[PersonalSpan("name", 0, len(text), text)] for text in texts]

    assert full_names_in(names("Ada Lovelace", "Ada")) == {"ada": "Ada Lovelace", "lovelace": "Ada Lovelace"}
    assert "ada" not in full_names_in(names("Ada Lovelace", "Ada Byron", "Ada"))
    spans = [PersonalSpan("name", 0, 3, "Ada"), PersonalSpan("mail", 8, 11, "a@b")]
    pseudonyms = Pseudonyms(KEY)
    assert pseudonyms.replaced("Ada and a@b.", spans, {"ada": "Ada Lovelace"}) == (
        f"{pseudonyms.of('name', 'ada lovelace')} and {pseudonyms.of('mail', 'a@b')}."
    )


def test_all_texts_of_a_field_are_taken_and_put_back() -> None:
    value = [{"role": "user", "content": "a", "n": 1}, "b", ["c", None]]
    assert strings_of(value) == ["a", "b", "c"]
    assert with_strings(value, ["x", "y", "z"]) == [{"role": "user", "content": "x", "n": 1}, "y", ["z", None]]


def test_the_key_is_out_of_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(UserError, match=r"pseudonyms need a key.*--key=FILE.*head -c 32 /dev/urandom"):
        pseudonym_key(None)
    monkeypatch.setenv(KEY_VARIABLE, "short")
    with pytest.raises(UserError, match=f"^{KEY_VARIABLE}: 5 bytes can be guessed: at least 16"):
        pseudonym_key(None)
    monkeypatch.setenv(KEY_VARIABLE, KEY.decode())
    assert pseudonym_key(None) == KEY
    (tmp_path / "key").write_bytes(b" another key of 25 bytes \n")
    assert pseudonym_key(tmp_path / "key") == b"another key of 25 bytes"
    with pytest.raises(UserError, match=r"--key=.*absent: cannot be read"):
        pseudonym_key(tmp_path / "absent")
