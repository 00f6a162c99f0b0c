"""Chat messages and how they become text: the tokenizer's template, or a plain dialogue."""

from collections.abc import Callable
from typing import Any

from jinja2 import Template, TemplateError

from plumbob.core.errors import UserError
from plumbob.data.records import RowError
from plumbob.data.tokenization import Tokenizer

Message = dict[str, Any]
Render = Callable[[list[Message]], str]
"""Chat messages -> the text of the prompt, opened for the assistant's response."""
HUMAN_TURN = "\n\nHuman:"
ASSISTANT_TURN = "\n\nAssistant:"

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

    The function raises UserError when the tokenizer has no template, RowError when the template refuses the messages.
    """

    def render(messages: list[Message]) -> str:
        if tokenizer.chat_template is None:
            raise UserError(
                "the file has chat messages, but the model's tokenizer has no chat template to write them with. "
                "Give the prompt as text, or add a chat_template to the tokenizer's folder"
            )
        try:
            return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except TemplateError as error:
            raise RowError(f"the tokenizer's chat template refuses the messages: {error}") from error

    return render


def plain_dialogue(messages: list[Message]) -> str:
    """Chat messages -> prompt text where no tokenizer with a chat template is at hand: `PLAIN_CHAT_TEMPLATE`."""
    return Template(PLAIN_CHAT_TEMPLATE).render(messages=messages, add_generation_prompt=True)
