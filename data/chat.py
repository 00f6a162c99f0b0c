"""Chat messages and how they become text: the tokenizer's template, or a plain dialogue."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from jinja2 import Template, TemplateError

from plumbob.core.errors import UserError
from plumbob.core.outside import reason_of
from plumbob.data.bounded_templates import render as render_bounded
from plumbob.data.records import RowError
from plumbob.data.tokenization import Tokenizer

Message = dict[str, Any]


class Render(Protocol):
    """Chat messages -> text."""

    def __call__(self, messages: list[Message], **values: Any) -> str:
        """The text of the prompt, opened for the assistant's response.

        Args:
            values: what the chat template is given beside the messages: `tools`, `add_generation_prompt` (False closes
                the text behind its last message), and what else it knows.
        """


HUMAN_TURN = "\n\nHuman:"
ASSISTANT_TURN = "\n\nAssistant:"

_UNSET = {"tools": None, "documents": None, "add_generation_prompt": True}
"""What a template finds where nothing is said, as in transformers."""

TURNS = {"user": HUMAN_TURN, "assistant": ASSISTANT_TURN}
PLAIN_CHAT_TEMPLATE = (
    f"{{% set turns = {TURNS} %}}"
    "{% for message in messages %}"
    "{{ turns.get(message['role'], '\\n\\n' ~ message['role'] | capitalize ~ ':') }} {{ message['content'] }}"
    "{% if loop.last and message['role'] == 'assistant' and not add_generation_prompt %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ turns['assistant'] }}{% endif %}"
)
"""A transcript as in hh-rlhf, in the form that tokenizers keep.

"\\n\\nHuman: Hi\\n\\nAssistant:", opened for the assistant's response; other roles stand under their own name.
"""


def chat_renderer(tokenizer: Tokenizer) -> Render:
    """Chat messages -> prompt text by the tokenizer's chat template, opened for the assistant's response.

    The function raises UserError when the tokenizer has no template, RowError when the template refuses the messages or
    cannot write them within its bounds.
    """

    def render(messages: list[Message], **values: Any) -> str:
        if tokenizer.chat_template is None:
            raise UserError(
                "the file has chat messages, but the model's tokenizer has no chat template to write them with. "
                "Give the prompt as text, or add a chat_template to the tokenizer's folder"
            )
        with _refusing_rows():
            template = tokenizer.get_chat_template(tools=values.get("tools"))
            return template_renderer(template, tokenizer.special_tokens_map)(messages, **values)

    return render


def template_renderer(template: str, special_tokens: Mapping[str, Any]) -> Render:
    """The same by a chat template of any origin, which finds `special_tokens` by their names."""

    def render(messages: list[Message], **values: Any) -> str:
        with _refusing_rows():
            return render_bounded(template, **{**_UNSET, **special_tokens, **values, "messages": messages})

    return render


@contextmanager
def _refusing_rows() -> Iterator[None]:
    """A template is a program from outside: it raises what it likes."""
    try:
        yield
    except RowError:
        raise
    except TemplateError as error:
        raise RowError(f"the tokenizer's chat template refuses the messages: {reason_of(error)}") from error
    except Exception as error:
        raise RowError(
            f"the tokenizer's chat template cannot write the messages: {type(error).__name__}: {reason_of(error)}; "
            f"correct chat_template in the tokenizer's folder"
        ) from error


def plain_dialogue(messages: list[Message], **values: Any) -> str:
    """Chat messages -> text where no tokenizer with a chat template is at hand: `PLAIN_CHAT_TEMPLATE`."""
    return Template(PLAIN_CHAT_TEMPLATE).render(**{**_UNSET, "eos_token": "", **values, "messages": messages})
