"""Forms in which a call of a tool stands in a text: how each is read (`JsonCall`, `NamedJsonCall`, `TaggedCall`)."""

import json
from dataclasses import dataclass
from typing import Any, NoReturn


class NoCall(Exception):  # noqa: N818 - said of a text of the policy's, which is then a text
    """There is no call of this form in the text."""


@dataclass(frozen=True)
class JsonCall:
    """`{"name": NAME, "arguments": {...}}`. Attributes: what the template calls the two."""

    name_key: str
    arguments_key: str

    def read(self, text: str, start: int) -> tuple[dict[str, Any], int]:
        """(name and arguments, where the call ends). Raises NoCall."""
        call, end = json_at(text, start)
        return named_call(call.get(self.name_key), call.get(self.arguments_key)), end


@dataclass(frozen=True)
class NamedJsonCall:
    """The name, a text, and the arguments as JSON. Attributes: the text between them."""

    middle: str

    def read(self, text: str, start: int) -> tuple[dict[str, Any], int]:
        name, end = upto(text, start, self.middle)
        arguments, end = json_at(text, behind_space(text, end))
        return named_call(name, arguments), end


@dataclass(frozen=True)
class TaggedCall:
    """The name, and each argument between tags.

    Attributes:
        opening: before the first key.
        middle: between a key and its value.
        following: between a value and the next key.
        closing: behind the last value; the first text of what ends the call, `closing_bare` of one without arguments.
    """

    opening: str
    middle: str
    following: str
    closing: str
    closing_bare: str

    def read(self, text: str, start: int) -> tuple[dict[str, Any], int]:
        arguments: dict[str, Any] = {}
        bare = text.find(self.closing_bare, start)
        opened = text.find(self.opening, start)
        if bare >= 0 and (opened < 0 or bare < opened):
            return named_call(text[start:bare].strip(), arguments), bare + len(self.closing_bare)
        name, end = upto(text, start, self.opening)
        while True:
            key, end = upto(text, end, self.middle)
            stop, last = text.find(self.following, end), text.find(self.closing, end)
            if last < 0 or key in arguments:
                raise NoCall
            is_last = stop < 0 or last <= stop
            arguments[key] = _value(text[end : last if is_last else stop].strip())
            if is_last:
                return named_call(name, arguments), last + len(self.closing)
            end = stop + len(self.following)


def json_at(text: str, start: int) -> tuple[dict[str, Any], int]:
    """(the JSON object that begins there, where it ends). Raises NoCall."""
    try:
        value, end = _DECODER.raw_decode(text, max(start, 0))
    except (ValueError, RecursionError):
        raise NoCall from None
    if start < 0 or not isinstance(value, dict):
        raise NoCall
    return value, end


def named_call(name: Any, arguments: Any) -> dict[str, Any]:
    """Raises NoCall where it is none. Arguments may be JSON text."""
    if isinstance(arguments, str):
        given = arguments.strip()
        arguments, end = json_at(given, 0)
        if end < len(given):
            raise NoCall
    if not isinstance(name, str) or not name or name.split() != [name] or not isinstance(arguments, dict):
        raise NoCall
    return {"name": name, "arguments": arguments}


def upto(text: str, start: int, mark: str) -> tuple[str, int]:
    """(the text up to a mark, without space around it; where the mark ends). Raises NoCall."""
    stop = text.find(mark, start)
    if stop < 0:
        raise NoCall
    return text[start:stop].strip(), stop + len(mark)


def behind_space(text: str, start: int) -> int:
    return len(text) - len(text[start:].lstrip())


def _value(text: str) -> Any:
    """What JSON says, where it is JSON."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return text


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
