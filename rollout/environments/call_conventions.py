"""How a chat template writes calls of tools, learnt from what it writes of a call with words that no model knows.

Three forms are known, each with text before and behind the calls and between them::

    {"name": NAME, "arguments": {...}}      Qwen 2.5 and 3, Mistral, Llama 3 (which says `parameters`)
    NAME text {...}                         DeepSeek, gpt-oss
    NAME text KEY text VALUE text ...       Qwen 3.5, GLM 4, Nemotron 3: values as they are, or as JSON
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from plumbob.data.bounded_templates import template_trial
from plumbob.data.texts.tokenizer import Tokenizer
from plumbob.data.texts.turns import ANSWER, QUESTION, AssistantTurn, assistant_turn, write, written_end

NAME, OTHER_NAME = "Fnmbldvx", "Gnmbldvx"
KEYS, VALUES = ("Kmbldvx", "Lmbldvx"), ("Vmbldvx", "Wmbldvx")
"""Words that no template knows."""

IDS = ("call00000", "call00001")
"""Nine letters and digits, as Mistral's template asks."""


THOUGHTS_END = "</think>"
"""Before it a policy may try out what it will write."""


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
        arguments, end = json_at(text, _behind_space(text, end))
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


@dataclass(frozen=True)
class CallConvention:
    """How a template writes calls.

    Attributes:
        begin: before the first; empty where nothing marks them, and a call is then all of a turn.
        between: between two; None where a turn has one at most.
        end: behind the last, up to the end of the turn.
    """

    form: JsonCall | NamedJsonCall | TaggedCall
    begin: str
    between: str | None
    end: str

    def calls_in(self, text: str) -> tuple[str, list[dict[str, Any]]]:
        """(the text before the calls, name and arguments of each). Raises NoCall where any of it is otherwise."""
        thought = text.rfind(THOUGHTS_END)
        start = text.find(self.begin, 0 if thought < 0 else thought + len(THOUGHTS_END))
        if start < 0:
            raise NoCall
        content, place, calls = text[:start].strip(), start + len(self.begin), []
        while True:
            call, place = self.form.read(text, _behind_space(text, place))
            calls.append(call)
            place = _behind_space(text, place)
            if text[place:].rstrip() == self.end:
                return content, calls
            if not self.between or not text.startswith(self.between, place):
                raise NoCall
            place += len(self.between)


@template_trial()
def call_convention(tokenizer: Tokenizer) -> CallConvention | None:
    """None where the tokenizer's template writes no calls, or in none of the known forms."""
    turn = assistant_turn(tokenizer)
    if turn is None:
        return None
    for as_text in (False, True):  # Some take arguments as JSON text alone.
        one = _written(tokenizer, "", as_text, _call(NAME, IDS[0]))
        if one is None or one.count(NAME) != 1 or not all(one.count(word) == 1 for word in (*KEYS, *VALUES)):
            continue
        two = _written(tokenizer, "", as_text, _call(NAME, IDS[0]), _call(OTHER_NAME, IDS[1]))
        bare = _written(tokenizer, "", as_text, _call(NAME, IDS[0], {}))
        told = _written(tokenizer, ANSWER, as_text, _call(NAME, IDS[0]))
        found = _convention(tokenizer, turn, one, two, bare, told)
        if found is not None:
            return found
    return None


# -------------------------------------------------------------------------------------------------- learning


def _convention(
    tokenizer: Tokenizer, turn: AssistantTurn, one: str, two: str | None, bare: str | None, told: str | None
) -> CallConvention | None:
    """From one call alone, two, one without arguments, and one behind a text."""
    form, start, stop = _json_form(one) or _named_form(one) or (None, 0, 0)
    if form is None:
        return _tagged_convention(tokenizer, turn, one, two, bare, told)
    begin, end = _begin(turn, one[:start], told, one[start:stop]), _end(tokenizer, one[stop:])
    return CallConvention(form, begin, _between(two, one[start:stop]), end)


def _json_form(one: str) -> tuple[JsonCall, int, int] | None:
    """The smallest object that holds the name, and where it stands."""
    start = one.find(NAME)
    while (start := one.rfind("{", 0, start)) >= 0:
        try:
            call, stop = json_at(one, start)
        except NoCall:
            continue
        keys = {repr(value): key for key, value in call.items()}
        name, arguments = keys.get(repr(NAME)), keys.get(repr(_arguments())) or keys.get(repr(json.dumps(_arguments())))
        return None if name is None or arguments is None else (JsonCall(name, arguments), start, stop)
    return None


def _named_form(one: str) -> tuple[NamedJsonCall, int, int] | None:
    start = one.find(NAME)
    brace = one.find("{", start)
    try:
        arguments, stop = json_at(one, brace)
    except NoCall:
        return None
    middle = one[start + len(NAME) : brace].strip()
    return (NamedJsonCall(middle), start, stop) if middle and arguments == _arguments() else None


def _tagged_convention(
    tokenizer: Tokenizer, turn: AssistantTurn, one: str, two: str | None, bare: str | None, told: str | None
) -> CallConvention | None:
    start = one.find(NAME)
    places = [one.find(word) for word in (NAME, KEYS[0], VALUES[0], KEYS[1], VALUES[1])]
    if places != sorted(places) or bare is None or NAME not in bare:
        return None
    opening, middle, following, again = (
        one[before + len(word) : after].strip()
        for word, before, after in zip((NAME, KEYS[0], VALUES[0], KEYS[1]), places, places[1:], strict=False)
    )
    closing = _end(tokenizer, one[places[-1] + len(VALUES[1]) :])
    closing_bare = _end(tokenizer, bare.partition(NAME)[2])
    if again != middle or not all((opening, middle, following, closing, closing_bare)):
        return None
    form = TaggedCall(opening, middle, following, closing, closing_bare)
    stop = places[-1] + len(VALUES[1])
    between = _between(two, one[start:stop])
    begin = _begin(turn, one[:start], told, one[start:stop])
    # What closes a call of this form is read with it.
    return CallConvention(form, begin, between and between.removeprefix(closing).strip(), "")


def _begin(turn: AssistantTurn, before: str, told: str | None, call: str) -> str:
    """What stands between a turn's text and its first call."""
    if told is not None and told.count(ANSWER) == 1 and call in told.partition(ANSWER)[2]:
        return told.partition(ANSWER)[2].partition(call)[0].strip()
    return before.rpartition(turn.opening)[2].strip()


def _between(two: str | None, call: str) -> str | None:
    """What stands between two calls that are alike but for their names."""
    other = call.replace(NAME, OTHER_NAME).replace(IDS[0], IDS[1])
    if two is None or call not in two or other not in two:
        return None
    return two.partition(call)[2].partition(other)[0].strip()


def _end(tokenizer: Tokenizer, after: str) -> str:
    """What stands behind a call, without the token that ends the turn."""
    token = written_end(tokenizer, after)
    return (after if token is None else after.rpartition(token)[0]).strip()


def _call(name: str, id_: str, arguments: Mapping[str, str] | None = None) -> dict[str, Any]:
    given = _arguments() if arguments is None else dict(arguments)
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": given}}


def _arguments() -> dict[str, str]:
    return dict(zip(KEYS, VALUES, strict=True))


def _written(tokenizer: Tokenizer, content: str, as_text: bool, *calls: dict[str, Any]) -> str | None:
    """None where the template refuses."""
    given = [
        {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
        if as_text
        else call
        for call in calls
    ]
    dialogue = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": content, "tool_calls": given}]
    try:
        return write(tokenizer, dialogue, add_generation_prompt=False)
    except Exception:  # A template is a program from outside: it raises what it likes.
        return None


# --------------------------------------------------------------------------------------------------- reading


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


def _behind_space(text: str, start: int) -> int:
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
