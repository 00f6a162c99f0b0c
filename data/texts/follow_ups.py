"""Follow-ups: what a chat template writes between the end of an assistant's turn and the opening of its next one."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbob.core.errors import UserError
from plumbob.data.records import RowError
from plumbob.data.texts.chat import Message, chat_renderer
from plumbob.data.texts.codec import TextCodec
from plumbob.data.texts.control_tokens import MARK, any_of, checked_marks
from plumbob.data.texts.tokenizer import Tokenizer
from plumbob.data.texts.turns import ANSWER, QUESTION, ResponseEnds

_CONTENT = "Cmbldvx"
"""A word that no template knows, in the place of a message's content."""


class FollowUps:
    """Of one tokenizer: messages that follow an assistant's turn, as token ids, up to where its next turn begins.

    The conversation before them is not looked at: what the policy wrote stays as the tokens that it is. So a template
    that writes earlier turns otherwise once others follow, such as without their thoughts, does not do so here.

    Raises:
        UserError: the tokenizer has no chat template.
    """

    def __init__(self, tokenizer: Tokenizer, codec: TextCodec) -> None:
        if tokenizer.chat_template is None:
            raise UserError(
                f"{tokenizer.name_or_path}: an environment answers with messages, but the tokenizer has no chat "
                f"template to write them with: add a chat_template to its folder"
            )
        self._render, self._codec = chat_renderer(tokenizer), codec
        ends = ResponseEnds(tokenizer).stop_tokens
        self._end = any_of(ends)
        self._turn_before = cache(self._written_turn_before)

    def ids(self, context: NDArray[np.int32], messages: Sequence[Mapping[str, Any]]) -> NDArray[np.int32]:
        """Int32 [N] of what follows `context`, int32 [P], which ends with the turn that the messages answer.

        A control token that a message spells is letters.

        Raises:
            UserError: the template cannot write such messages behind an assistant's turn.
        """
        text = self.text(messages)
        return self._codec.encode_after([context], [text])[0]

    def text(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The same as text, whose spelt control tokens are marked. UserError as `ids`."""
        given = [dict(message) for message in messages]
        turn = self._turn_before(tuple((message["role"], message.get("tool_call_id")) for message in given))
        marked = self._render.control.marked_within(given) if self._render.control is not None else given
        try:
            written = checked_marks(self._render([_QUESTION, turn, *marked]), marked)
        except RowError as error:
            raise UserError(f"{error}; they are what an environment answered: {given}") from error
        return self._behind_turn(written, str(marked[0]["content"]))

    def _written_turn_before(self, messages: tuple[tuple[str, str | None], ...]) -> Message:
        """A turn behind which the template writes messages of such roles: of text, or one that calls a tool."""
        probes: list[Message] = [
            {"role": role, "content": _CONTENT} | ({} if call is None else {"tool_call_id": call})
            for role, call in messages
        ]
        calls = [call for role, call in messages if role == "tool"]
        reason = "it leaves them out"
        for turn in (_ANSWERED, _called(calls)):
            try:
                written = self._render([_QUESTION, turn, *probes])
            except RowError as error:
                reason = str(error)
                continue
            if written.partition(ANSWER)[2].count(_CONTENT) == len(probes):
                return turn
        roles = ", ".join(dict.fromkeys(role for role, _ in messages))
        raise UserError(
            f"the tokenizer's chat template does not write the messages ({roles}) with which an environment answered a "
            f"turn of the assistant's ({reason}): answer with messages of other roles, such as user, or give the model "
            f"a chat template that writes them"
        )

    def _behind_turn(self, written: str, first_content: str) -> str:
        """What stands behind the token that ends the turn; behind its text, where the template ends no such turn."""
        behind = written.partition(ANSWER)[2]
        content = behind.find(first_content) if first_content.strip() else -1
        for end in self._end.finditer(behind):
            if content >= 0 and end.start() > content:
                break
            if not behind[: end.start()].endswith(MARK):
                return behind[end.end() :]
        return behind


_QUESTION: Message = {"role": "user", "content": QUESTION}
_ANSWERED: Message = {"role": "assistant", "content": ANSWER}


def _called(calls: Sequence[str | None]) -> Message:
    """A turn that calls as many tools as are answered."""
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": call or "Callqmbld", "type": "function", "function": {"name": ANSWER, "arguments": {}}}
            for call in calls or [None]
        ],
    }
