"""Chat messages and how they become text: the tokenizer's template, or a plain dialogue."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any, Protocol

from jinja2 import Template, TemplateError

from plumbob.configs.settings.data import prompt_template_fault
from plumbob.configs.validation import shortened
from plumbob.core.errors import UserError
from plumbob.core.outside import reason_of
from plumbob.data.records import RowError
from plumbob.data.texts.control_tokens import SpeltTokens
from plumbob.data.texts.tokenizer import Tokenizer
from plumbob.data.texts.turns import (
    ANSWER,
    AssistantTurn,
    assistant_turn,
    control_tokens,
    opened_tags,
    without_repeated,
    write,
    written_by,
)

Message = dict[str, Any]


class Render(Protocol):
    """Chat messages -> text."""

    def __call__(self, messages: list[Message], **values: Any) -> str:
        """The text of the prompt, opened for the assistant's response.

        Args:
            values: what the chat template is given beside the messages: `tools`, `add_generation_prompt` (False closes
                the text behind its last message), and what else it knows.
        """


class RowRender(Render, Protocol):
    """The same while a file is read, with what becomes of the texts that no template writes."""

    def prompt(self, text: str) -> str:
        """The prompt that a question given as text is."""

    def response(self, context: list[Message], message: Message, prompt: str, **values: Any) -> str:
        """The response that the message is, behind the prompt that `context` was written as."""

    def ended(self, response: str) -> str:
        """A response as the template wrote it, to its end. RowError where it ends with what nothing would stop at."""

    def unclosed_tag(self, prompt: str, response: str) -> str | None:
        """Such as `<think>`, where the prompt opens it and the response does not close it; else None."""


PROMPT_TEMPLATE = "prompt_template"
"""Where a tokenizer keeps what its model's prompts were written with: a name of its tokenizer_config.json."""

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


class ModelRender:
    """A render for one model.

    Attributes:
        control: the control tokens of the model that is to read the texts; None where that is not known.
        prompt_template: what the model's prompts were written with, where no chat template was.
    """

    control: SpeltTokens | None = None
    prompt_template: str | None = None

    def __call__(self, messages: list[Message], **values: Any) -> str:
        raise NotImplementedError

    def response(self, context: list[Message], message: Message, prompt: str, **values: Any) -> str:
        """The message's content, behind what is written between the prompt and it, such as a space."""
        content = str(message["content"])
        if not content.strip():
            return content
        try:
            written = self([*context, message | {"content": ANSWER}], **(values | {"add_generation_prompt": False}))
        except RowError:
            return content
        before, answered, _ = written.removeprefix(prompt).partition(ANSWER)
        return before + content if answered and written.startswith(prompt) else content

    def ended(self, response: str) -> str:
        return response

    def unclosed_tag(self, prompt: str, response: str) -> str | None:
        return None


class ObservedRender(ModelRender):
    """Another render, of which calls are made through `call`.

    Args:
        prompt_template: None takes that of `render`.
    """

    def __init__(self, render: Render, call: Render, prompt_template: str | None = None) -> None:
        self._render, self._call = render, call
        self.prompt_template = prompt_template
        if isinstance(render, ModelRender):
            self.control, self.prompt_template = render.control, prompt_template or render.prompt_template

    def __call__(self, messages: list[Message], **values: Any) -> str:
        return self._call(messages, **values)

    def response(self, context: list[Message], message: Message, prompt: str, **values: Any) -> str:
        if isinstance(self._render, ModelRender):
            return self._render.response(context, message, prompt, **values)
        return super().response(context, message, prompt, **values)

    def ended(self, response: str) -> str:
        return self._render.ended(response) if isinstance(self._render, ModelRender) else response

    def unclosed_tag(self, prompt: str, response: str) -> str | None:
        return self._render.unclosed_tag(prompt, response) if isinstance(self._render, ModelRender) else None


class ChatRenderer(ModelRender):
    """By the tokenizer's chat template.

    Called, it raises UserError when the tokenizer has no template, RowError when the template refuses the messages or
    cannot write them within its bounds.

    Raises:
        UserError: what the model's prompts were written with is no prompt template.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.control = control_tokens(tokenizer)
        self.prompt_template = _prompt_template_of(tokenizer)

    def __call__(self, messages: list[Message], **values: Any) -> str:
        if self._tokenizer.chat_template is None:
            raise UserError(
                "the file has chat messages, but the model's tokenizer has no chat template to write them with. "
                "Give the prompt as text, or add a chat_template to the tokenizer's folder"
            )
        with _refusing_rows():
            return write(self._tokenizer, messages, **values)

    def response(self, context: list[Message], message: Message, prompt: str, **values: Any) -> str:
        """What the template writes of the message behind the prompt, up to the token that ends the turn.

        Where it writes a whole dialogue otherwise than its opened prompt, such as one that opens `<think>` and leaves
        the thoughts of answers out, it is the content, without what the prompt has opened already.
        """
        content, turn, written = str(message["content"]), self._turn, ""
        if turn is None or not content.strip():
            return content
        with suppress(RowError):
            written = self([*context, message], **(values | {"add_generation_prompt": False}))
        if written.startswith(prompt) and written.endswith(turn.after):
            return written.removeprefix(prompt).removesuffix(turn.after) + turn.closing
        answer = content.strip() if turn.strips else content
        return without_repeated(opened_tags(prompt), answer) + turn.closing

    def ended(self, response: str) -> str:
        return response if self._turn is None else self._turn.checked_end(self._tokenizer, response)

    def unclosed_tag(self, prompt: str, response: str) -> str | None:
        return None if self._turn is None else self._turn.unclosed_tag(prompt, response)

    @cached_property
    def _turn(self) -> AssistantTurn | None:
        return assistant_turn(self._tokenizer)


def _prompt_template_of(tokenizer: Tokenizer) -> str | None:
    """What is kept beside the model comes from outside, as the model does. Raises UserError where it cannot be used."""
    kept = tokenizer.init_kwargs.get(PROMPT_TEMPLATE)
    fault = None if kept is None else prompt_template_fault(kept)
    if fault is not None:
        raise UserError(
            f"{tokenizer.name_or_path}: {PROMPT_TEMPLATE}={shortened(repr(kept))} in its tokenizer_config.json "
            f"{fault}; correct it there, or take it out"
        )
    return kept


def chat_renderer(tokenizer: Tokenizer) -> ChatRenderer:
    """Chat messages -> text by the tokenizer's chat template."""
    return ChatRenderer(tokenizer)


_PLAIN_TEMPLATE = Template(PLAIN_CHAT_TEMPLATE)


class PlainDialogue(ModelRender):
    """By `PLAIN_CHAT_TEMPLATE`, where no tokenizer with a chat template is at hand."""

    def __init__(self, control: SpeltTokens | None = None) -> None:
        self.control = control

    def __call__(self, messages: list[Message], **values: Any) -> str:
        unset = {"add_generation_prompt": True, "eos_token": ""}
        return _PLAIN_TEMPLATE.render(**{**unset, **values, "messages": messages})


plain_dialogue = PlainDialogue()
"""For a reader of text that has no control tokens."""


class TemplateRenderer(ModelRender):
    """By a chat template of any origin, which finds `special_tokens` by their names."""

    def __init__(self, template: str, special_tokens: Mapping[str, Any]) -> None:
        self._template, self._special_tokens = template, special_tokens

    def __call__(self, messages: list[Message], **values: Any) -> str:
        with _refusing_rows():
            return written_by(self._template, self._special_tokens, messages, **values)


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
        name, reason = type(error).__name__, reason_of(error)
        raise RowError(
            f"the tokenizer's chat template cannot write the messages: {name}: {reason.removeprefix(f'{name}: ')}; "
            f"correct chat_template in the tokenizer's folder"
        ) from error
