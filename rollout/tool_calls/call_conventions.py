"""How a chat template writes calls of tools, learnt from what it writes of a call with words that no model knows.

Three forms are known, each with text before and behind the calls and between them::

    {"name": NAME, "arguments": {...}}      Qwen 2.5 and 3, Mistral, Llama 3 (which says `parameters`)
    NAME text {...}                         DeepSeek, gpt-oss
    NAME text KEY text VALUE text ...       Qwen 3.5, GLM 4, Nemotron 3: values as they are, or as JSON
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plumbob.data.texts.bounded_templates import template_trial
from plumbob.data.texts.tokenizer import Tokenizer
from plumbob.data.texts.turns import ANSWER, QUESTION, AssistantTurn, assistant_turn, write, written_end
from plumbob.rollout.tool_calls.call_forms import (
    JsonCall,
    NamedJsonCall,
    NoCall,
    TaggedCall,
    behind_space,
    json_at,
)

NAME, OTHER_NAME = "Fnmbldvx", "Gnmbldvx"
KEYS, VALUES = ("Kmbldvx", "Lmbldvx"), ("Vmbldvx", "Wmbldvx")
"""Words that no template knows."""

NUMBERS = (73516, 24681)
IDS = ("call00000", "call00001")
"""Nine letters and digits, as Mistral's template asks."""

THOUGHTS_END = "</think>"
"""Before it a policy may try out what it will write."""


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
        content, position, calls = text[:start].strip(), start + len(self.begin), []
        while True:
            call, position = self.form.read(text, behind_space(text, position))
            calls.append(call)
            position = behind_space(text, position)
            if text[position:].rstrip() == self.end:
                return content, calls
            if not self.between or not text.startswith(self.between, position):
                raise NoCall
            position += len(self.between)


@dataclass(frozen=True)
class _Samples:
    """What the template writes of turns with calls; None where it refuses.

    Attributes:
        one: a call alone.
        two: two of them that differ in their names.
        bare: one without arguments.
        behind: one behind a text.
        numbers: one whose arguments are numbers.
    """

    one: str
    two: str | None
    bare: str | None
    behind: str | None
    numbers: str | None


@template_trial()
def call_convention(tokenizer: Tokenizer) -> CallConvention | None:
    """None where the tokenizer's template writes no calls, or in none of the known forms."""
    turn = assistant_turn(tokenizer)
    if turn is None:
        return None
    for as_text in (False, True):  # Some take arguments as JSON text alone.
        one, two, bare, behind, numbers = (
            _written(tokenizer, content, as_text, *calls)
            for content, *calls in (
                ("", _call(NAME, IDS[0])),
                ("", _call(NAME, IDS[0]), _call(OTHER_NAME, IDS[1])),
                ("", _call(NAME, IDS[0], {})),
                (ANSWER, _call(NAME, IDS[0])),
                ("", _call(NAME, IDS[0], dict(zip(KEYS, NUMBERS, strict=True)))),
            )
        )
        if one is None or not all(one.count(word) == 1 for word in (NAME, *KEYS, *VALUES)):
            continue
        found = _convention(tokenizer, turn, _Samples(one, two, bare, behind, numbers))
        if found is not None:
            return found
    return None


def _convention(tokenizer: Tokenizer, turn: AssistantTurn, samples: _Samples) -> CallConvention | None:
    form, start, stop = _json_form(samples.one) or _named_form(samples.one) or (None, 0, 0)
    if form is None:
        return _tagged_convention(tokenizer, turn, samples)
    begin, end = _begin(turn, samples, start, stop), _end(tokenizer, samples.one[stop:])
    return CallConvention(form, begin, _between(samples, start, stop), end)


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


def _tagged_convention(tokenizer: Tokenizer, turn: AssistantTurn, samples: _Samples) -> CallConvention | None:
    """None where a number is written otherwise than a text, such as without quotation marks."""
    one, bare, numbers = samples.one, samples.bare or "", samples.numbers or ""
    positions = [one.find(word) for word in (NAME, KEYS[0], VALUES[0], KEYS[1], VALUES[1])]
    if positions != sorted(positions) or NAME not in bare:
        return None
    opening, middle, following, again = (
        one[before + len(word) : after].strip()
        for word, before, after in zip((NAME, KEYS[0], VALUES[0], KEYS[1]), positions, positions[1:], strict=False)
    )
    stop = positions[-1] + len(VALUES[1])
    closing, closing_bare = _end(tokenizer, one[stop:]), _end(tokenizer, bare.partition(NAME)[2])
    if again != middle or not all((opening, middle, following, closing, closing_bare)):
        return None
    _, _, number = numbers.partition(KEYS[0])[2].partition(middle)
    if not number.lstrip().startswith(str(NUMBERS[0])):
        return None
    between = _between(samples, positions[0], stop)
    # What closes a call of this form is read with it.
    between = between and between.removeprefix(closing).strip()
    form = TaggedCall(opening, middle, following, closing, closing_bare)
    return CallConvention(form, _begin(turn, samples, positions[0], stop), between, "")


def _begin(turn: AssistantTurn, samples: _Samples, start: int, stop: int) -> str:
    """What stands before the first call, be it all of the turn or behind a text: of both the part that is the same."""
    call, behind = samples.one[start:stop], samples.behind
    alone = samples.one[:start].rpartition(turn.opening)[2].strip()
    if behind is None or behind.count(ANSWER) != 1 or call not in behind.partition(ANSWER)[2]:
        return alone
    begin = behind.partition(ANSWER)[2].partition(call)[0].strip()
    return alone if alone and begin.endswith(alone) else begin


def _between(samples: _Samples, start: int, stop: int) -> str | None:
    """What stands between two calls that are alike but for their names."""
    call, two = samples.one[start:stop], samples.two
    other = call.replace(NAME, OTHER_NAME).replace(IDS[0], IDS[1])
    if two is None or call not in two or other not in two:
        return None
    return two.partition(call)[2].partition(other)[0].strip()


def _end(tokenizer: Tokenizer, after: str) -> str:
    """What stands behind a call, without the token that ends the turn."""
    token = written_end(tokenizer, after)
    return (after if token is None else after.rpartition(token)[0]).strip()


def _call(name: str, id_: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
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
    dialogue: list[dict[str, Any]] = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": content, "tool_calls": given},
    ]
    try:
        return write(tokenizer, dialogue, add_generation_prompt=False)
    except Exception:  # A template is a program from outside: it raises what it likes.
        return None
