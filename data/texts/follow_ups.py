"""Follow-ups: what a chat template writes between the end of an assistant's turn and the opening of its next one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbob.core.errors import UserError
from plumbob.data.records import RowError
from plumbob.data.texts.chat_text import Message, chat_renderer
from plumbob.data.texts.codec import TextCodec
from plumbob.data.texts.control_tokens import any_of, checked_marks
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
        self._end = any_of(ResponseEnds(tokenizer).stop_tokens)

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
        turn, start = self._turn_before(given)
        marked = self._render.control.marked_within(given) if self._render.control is not None else given
        try:
            written = checked_marks(self._render([_QUESTION, turn, *marked]), marked)
        except RowError as error:
            raise UserError(f"{error}; they are what an environment answered: {given}") from error
        return written.partition(ANSWER)[2][start:]

    def _turn_before(self, messages: Sequence[Message]) -> tuple[Message, int]:
        """A turn behind which the template writes such messages: of text, or one that calls a tool; and how many
        letters behind its `ANSWER` belong to it.

        They are found with words for contents that no template knows: a tool may give what the template writes itself.
        """
        probes = [message | {"content": _CONTENT} for message in messages]
        calls = [message.get("tool_call_id") for message in messages if message["role"] == "tool"]
        reason = "it leaves them out"
        for turn in (_ANSWERED, _called(calls)):
            try:
                behind = self._render([_QUESTION, turn, *probes]).partition(ANSWER)[2]
            except RowError as error:
                reason = str(error)
                continue
            if behind.count(_CONTENT) == len(probes):
                return turn, self._end_of_turn(behind)
        roles = ", ".join(dict.fromkeys(str(message["role"]) for message in messages))
        raise UserError(
            f"the tokenizer's chat template does not write the messages ({roles}) with which an environment answered a "
            f"turn of the assistant's ({reason}): answer with messages of other roles, such as user, or give the model "
            f"a chat template that writes them"
        )

    def _end_of_turn(self, behind: str) -> int:
        """Behind the token that ends the turn; 0 where the template ends no turn that others follow."""
        end = self._end.search(behind, 0, behind.find(_CONTENT))
        return 0 if end is None else end.end()


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
