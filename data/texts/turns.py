"""An assistant's turn in a chat template: how it is opened, and which token ends it.

Many templates end turns with another token than the tokenizer's EOS: Llama 3's `<|eot_id|>`, ChatML's `<|im_end|>`
where the EOS is `<|endoftext|>`. What a template writes is the one source of it: it is asked to write a dialogue.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from plumbob.data.records import RowError
from plumbob.data.texts.bounded_templates import render, template_trial
from plumbob.data.texts.control_tokens import MARK, ControlTokens, any_of
from plumbob.data.texts.tokenizer import Tokenizer

QUESTION, ANSWER = "Qmbldvx", "Ambldvx"
"""Words that no template knows."""

TAG = r"(?:</?\w+>|\[/?[A-Z_]+\])"
"""Such as `<think>`: what a template may open or close in the assistant's name."""

_TAG = re.compile(TAG)
_TAG_BEHIND_SPACE = re.compile(rf"\s*({TAG})")
_CLOSING = re.compile(r"</\w+>|\[/[A-Z_]+\]")
_DELIMITED = re.compile(r"<.+>|\[.+\]")


@dataclass(frozen=True)
class AssistantTurn:
    """As the template writes it: opening, answer, closing.

    Attributes:
        opening: what a prompt ends with, up to tags such as `<think>`.
        before: between the opened prompt and the answer, such as a space.
        after: all that follows the answer where the dialogue ends there.
        closing: the part of it that stands before the end token, such as a space.
        end, end_id: the token that ends the turn: the first control token behind the answer, or the EOS where there is
            none.
        ends: token -> id of all that end its turns: `end`, and what ends a turn that calls a tool.
        strips: whether the template takes away space around an answer.
        tokens: the added tokens that the template writes around questions and answers, without the tags at the head
            of an answer, such as `<think>` and `</think>`, which answers write too.
    """

    opening: str
    before: str
    after: str
    closing: str
    end: str
    end_id: int
    ends: Mapping[str, int]
    strips: bool
    tokens: frozenset[str]

    def is_opened_by(self, prompt: str) -> bool:
        """Whether the prompt ends with an opened turn of the assistant's, which the template wrote."""
        start = prompt.rfind(self.opening)
        if start < 0 or not self.opening or prompt[:start].endswith(MARK):
            return False
        return not _without_tags(prompt[start + len(self.opening) :])

    def behind_prompt(self, answer: str) -> str:
        """What stands behind an opened prompt of an answer: before it what the template writes there, such as a space,
        or thoughts that it opens and closes. An answer that has it already gets no second."""
        answer, tag = answer.strip() if self.strips else answer, _TAG_BEHIND_SPACE.match(self.before)
        has_own = answer.startswith(self.before) or (tag is not None and answer.lstrip().startswith(tag[1]))
        return answer if has_own else self.before + answer

    def unclosed_tag(self, prompt: str, response: str) -> str | None:
        """Such as `<think>`, where the prompt's end opens it and the response does not close it; else None."""
        tags = prompt[prompt.rfind(self.opening) + len(self.opening) :] if self.is_opened_by(prompt) else ""
        for tag in map(str, reversed(_TAG.findall(tags))):
            if _CLOSING.fullmatch(tag) is None and f"{tag[0]}/{tag[1:]}" not in tags + response:
                return tag
        return None

    def checked_end(self, tokenizer: Tokenizer, response: str) -> str:
        """The response as the template wrote it. RowError where it ends with a token not of `ends`, nor the EOS."""
        end = written_end(tokenizer, response)
        if end is not None and end != tokenizer.eos_token and end not in self.ends:
            raise RowError(
                f"the tokenizer's chat template ends the response's turn with {end}, and others with "
                f"{', '.join(self.ends)}: no sampler would know to stop at it. Leave the row out, or correct "
                f"chat_template in the tokenizer's folder"
            )
        return response


@template_trial()
def assistant_turn(tokenizer: Tokenizer) -> AssistantTurn | None:
    """None where the tokenizer has no chat template, or one that does not write the plainest dialogue or never ends."""
    if tokenizer.chat_template is None:
        return None
    try:
        opened = write(tokenizer, [_user()])
        unopened = write(tokenizer, [_user()], add_generation_prompt=False)
        whole, spaced = (
            write(tokenizer, [_user(), {"role": "assistant", "content": text}], add_generation_prompt=False)
            for text in (ANSWER, f" \n{ANSWER}\n ")
        )
    except Exception:  # A template is a program from outside: it raises what it likes.
        return None
    front, answered, after = whole.rpartition(ANSWER)
    found = _end(tokenizer, after)
    if not answered or QUESTION not in opened or found is None:
        return None
    closing, end, end_id = found
    tail = opened.removeprefix(unopened) if opened.startswith(unopened) else ""
    tail = tail or opened.rpartition(QUESTION)[2]
    before = front.removeprefix(opened) if front.startswith(opened) else ""
    # Of a template that opens no prompt, what stands before an answer is what tells turns apart.
    head = "" if opened == unopened else before + opened_tags(front)
    return AssistantTurn(
        opening=_without_tags(tail) or tail.rstrip(),
        before=before,
        after=after,
        closing=closing,
        end=end,
        end_id=end_id,
        ends={end: end_id} | _tool_ends(tokenizer),
        strips=spaced == whole,
        tokens=frozenset(token for token in _added_ids(tokenizer) if token in opened + whole).difference(
            _TAG.findall(opened_tags(opened) + head)
        ),
    )


def control_tokens(tokenizer: Tokenizer) -> ControlTokens:
    """Those that it marks as special, and those by which its chat template tells turns apart."""
    turn = assistant_turn(tokenizer)
    return ControlTokens(tokenizer, () if turn is None else turn.tokens)


class ResponseEnds:
    """Where the responses of one tokenizer's model end.

    Attributes:
        stop_ids: the tokens that end one.
        stop_tokens: the same as text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        assert tokenizer.eos_token_id is not None, "a policy's tokenizer has an EOS"
        self._turn, self._eos_id = assistant_turn(tokenizer), tokenizer.eos_token_id
        turn_ends = {} if self._turn is None else self._turn.ends
        self.stop_ids = {self._eos_id, *turn_ends.values()}
        ends = {str(tokenizer.eos_token), *turn_ends}
        self.stop_tokens = sorted(filter(None, ends), key=len, reverse=True)

    def end_id(self, prompt: str, response: str) -> int:
        """What a response to the prompt ends with: a turn that the template opened ends as the template ends it."""
        if self._turn is None or not self._turn.is_opened_by(prompt):
            return self._eos_id
        written = _last_token(self._turn.ends, response)
        return self._turn.end_id if written is None else self._turn.ends[written]

    def without_end(self, response: str) -> str:
        """The response without the end tokens that its text spells: it gets one of its own."""
        start = stop = len(response)
        while True:
            spelt = next((end for end in self.stop_tokens if response.endswith(end, 0, stop)), None)
            if spelt is not None:
                start = stop - len(spelt)
                start = stop = start - response.endswith(MARK, 0, start)
            elif stop and response[stop - 1].isspace():
                stop -= 1
            else:
                return response[:start]


def written_end(tokenizer: Tokenizer, turn: str) -> str | None:
    """The control token that ends a turn as the template wrote it. A tag that closes something, as a tool call, ends
    no turn, unless it is the EOS. None where there is none."""
    token = _last_token(_added_ids(tokenizer), turn)
    return None if token is None or (_CLOSING.fullmatch(token) and token != tokenizer.eos_token) else token


def write(tokenizer: Tokenizer, messages: list[dict[str, Any]], **values: Any) -> str:
    """What the chat template writes, opened for the assistant's response unless `add_generation_prompt` is False.

    Args:
        values: what the template is given beside the messages, in place of what it finds where nothing is said.

    Raises:
        Exception: what the template raises.
    """
    template = tokenizer.get_chat_template(tools=values.get("tools"))
    return written_by(template, tokenizer.special_tokens_map, messages, **values)


def written_by(template: str, special_tokens: Mapping[str, Any], messages: list[dict[str, Any]], **values: Any) -> str:
    """The same by a chat template of any origin, which finds `special_tokens` by their names."""
    unset = {"tools": None, "documents": None, "add_generation_prompt": True}
    return render(template, **{**unset, **special_tokens, **values, "messages": messages})


def opened_tags(prompt: str) -> str:
    """The tags, such as `<think>` and the space behind it, that the end of a prompt opens for the response."""
    tags = prompt[len(_without_tags(prompt)) :]
    return tags if tags.strip() else ""


def without_repeated(tags: str, answer: str) -> str:
    """The answer without what the prompt has opened already."""
    named, found, ends = _TAG.findall(tags), list[str](), list[int]()
    while len(found) < len(named):
        tag = _TAG_BEHIND_SPACE.match(answer, ends[-1] if ends else 0)
        if tag is None:
            break
        found.append(tag[1])
        ends.append(tag.end())
    for number in range(len(found), 0, -1):
        if named[-number:] == found[:number]:
            return answer[ends[number - 1] :].lstrip()
    return answer


def _user() -> dict[str, str]:
    return {"role": "user", "content": QUESTION}


def _added_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """The added tokens that may tell turns apart: what is marked as special, or looks as control tokens do.

    Vocabularies have ordinary words and runs of space as added tokens too.
    """
    return {
        token.content: int(id_)
        for id_, token in tokenizer.added_tokens_decoder.items()
        if token.content.strip() and (token.special or _DELIMITED.fullmatch(token.content.strip()))
    }


def _tool_ends(tokenizer: Tokenizer) -> dict[str, int]:
    """What ends a turn that calls a tool, also one of the tools that Llama 3.1 has built in; nothing where the template
    writes no calls."""
    call = {"id": "Callqmbld", "type": "function", "function": {"name": ANSWER, "arguments": {}}}
    dialogue: list[dict[str, Any]] = [_user(), {"role": "assistant", "content": "", "tool_calls": [call]}]
    ends = {}
    for values in ({}, {"builtin_tools": [ANSWER]}):
        try:
            written = write(tokenizer, dialogue, add_generation_prompt=False, **values)
        except Exception:  # As in `assistant_turn`.
            continue
        _, called, after = written.rpartition(ANSWER)
        end = written_end(tokenizer, after)
        if called and end is not None:
            ends[end] = _added_ids(tokenizer)[end]
    return ends


def _last_token(tokens: Iterable[str], text: str) -> str | None:
    """The longest of the tokens that the text ends with, space aside, where it is not marked as letters."""
    stop = _end_without_space(text, len(text))
    found = max((token for token in tokens if text.endswith(token, 0, stop)), key=len, default=None)
    return None if found is None or text.endswith(MARK, 0, stop - len(found)) else found


def _without_tags(text: str) -> str:
    """The text without the tags at its end and the space around them; a tag at a time, in time linear in its length."""
    stop = _end_without_space(text, len(text))
    while stop and text[stop - 1] in ">]":
        start = text.rfind("<" if text[stop - 1] == ">" else "[", 0, stop)
        if start < 0 or _TAG.fullmatch(text, start, stop) is None:
            break
        stop = _end_without_space(text, start)
    return text[:stop]


def _end_without_space(text: str, stop: int) -> int:
    """Where text[:stop] ends without the space at its end."""
    while stop and text[stop - 1].isspace():
        stop -= 1
    return stop


def _end(tokenizer: Tokenizer, after: str) -> tuple[str, str, int] | None:
    """(text before it, the token, its id); None where there is none, and no EOS."""
    ids = _added_ids(tokenizer)
    found = any_of(tuple(ids)).search(after)
    if found is not None:
        return after[: found.start()], found[0], ids[found[0]]
    return None if tokenizer.eos_token_id is None else ("", str(tokenizer.eos_token), tokenizer.eos_token_id)
