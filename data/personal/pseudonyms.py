"""Pseudonyms in place of personal data: the same for the same person; without their key nothing tells whose."""

import hashlib
import hmac
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside
from plumbob.data.personal.personal_span import PersonalSpan

KEY_VARIABLE = "PLUMBOB_PSEUDONYM_KEY"
LEAST_KEY_BYTES = 16
NUM_DIGITS = 10
"""Hexadecimal, of the pseudonym: among 10,000 people two have the same one with probability 5e-5."""

PHONE_DIGITS = 9
"""The last, by which a phone number is known."""

NEW_KEY = "head -c 32 /dev/urandom | base64 > FILE"


def pseudonym_key(file: Path | None) -> bytes:
    """The key out of a file, or else out of the environment. It is written nowhere.

    Raises:
        UserError: there is none, or it is too short to keep anything secret.
    """
    if file is not None:
        with from_outside(f"--key={file}: cannot be read", f"make one: {NEW_KEY}"):
            key = file.expanduser().read_bytes().strip()
        source = f"--key={file}"
    else:
        key, source = os.environ.get(KEY_VARIABLE, "").encode(errors="surrogateescape").strip(), KEY_VARIABLE
    if not key:
        raise UserError(
            f"pseudonyms need a key, which whoever is not to know the people must not have: --key=FILE or the variable "
            f"{KEY_VARIABLE}; make one: {NEW_KEY}"
        )
    if len(key) < LEAST_KEY_BYTES:
        raise UserError(f"{source}: {len(key)} bytes can be guessed: at least {LEAST_KEY_BYTES}; make one: {NEW_KEY}")
    return key


class Pseudonyms:
    """From personal data to pseudonyms, by HMAC-SHA256 (RFC 2104) of the kind and the value in one spelling."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, kind: str, value: str) -> str:
        """Such as `[NAME-3f09ac4e11]`."""
        digest = hmac.new(self._key, f"{kind}\n{one_spelling(kind, value)}".encode(errors="replace"), hashlib.sha256)
        return f"[{kind.upper()}-{digest.hexdigest()[:NUM_DIGITS]}]"

    def replaced(self, text: str, spans: Sequence[PersonalSpan], full_names: Mapping[str, str]) -> str:
        """The text with pseudonyms in place of the spans, which are in order and do not overlap.

        Args:
            full_names: of `full_names_in`.
        """
        parts, end = [], 0
        for span in spans:
            value = full_names.get(span.text.lower(), span.text) if span.kind == "name" else span.text
            parts += [text[end : span.start], self.of(span.kind, value)]
            end = span.end
        return "".join([*parts, text[end:]])


def full_names_in(found: Sequence[Sequence[PersonalSpan]]) -> Mapping[str, str]:
    """Of a row's texts: part of a name, in small letters -> the one full name there that has it.

    "Ada" beside "Ada Lovelace" is the same person; beside "Ada Byron" too, it is nobody known.
    """
    names = {span.text.lower(): span.text for spans in found for span in spans if span.kind == "name"}
    owners: dict[str, set[str]] = {}
    for name in names:
        words = name.split()
        for word in words if len(words) > 1 else ():
            owners.setdefault(word, set()).add(name)
    return {word: names[next(iter(whole))] for word, whole in owners.items() if len(whole) == 1}


def one_spelling(kind: str, value: str) -> str:
    """The same for all spellings of the same thing."""
    match kind:
        case "phone":
            # With the country's prefix or without it.
            return re.sub(r"\D", "", value)[-PHONE_DIGITS:]
        case "card" | "iban" | "mac":
            return re.sub(r"[^0-9a-z]", "", value.lower())
        case "secret":
            return value
        case _:
            return " ".join(value.lower().split())


def strings_of(value: Any) -> list[str]:
    """All texts of a field in which a person writes, in the order in which `with_strings` takes them."""
    match value:
        case str():
            return [value]
        case list():
            return [text for item in value for text in strings_of(item)]
        case dict():
            return [text for name, item in value.items() if name not in NO_PROSE for text in strings_of(item)]
        case _:
            return []


NO_PROSE = frozenset({"role", "from", "type"})
"""Names of a message's fields whose values are the format's."""


def with_strings(value: Any, texts: list[str]) -> Any:
    """The same field with these texts, which are taken from the front of the list."""
    match value:
        case str():
            return texts.pop(0)
        case list():
            return [with_strings(item, texts) for item in value]
        case dict():
            return {name: item if name in NO_PROSE else with_strings(item, texts) for name, item in value.items()}
        case _:
            return value
