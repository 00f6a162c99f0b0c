"""The texts of a file's rows as a model is to read them: templates written, control tokens told from letters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plumbob.configs.settings.data import PROMPT_PLACE, ReadingSettings
from plumbob.data.texts.chat_text import Message, ModelRender, Render
from plumbob.data.texts.control_tokens import SpeltTokens, checked_marks


@dataclass(frozen=True)
class WrittenTexts:
    """The texts of a file's rows as a model is to read them.

    Attributes:
        render: writes messages.
        prompt_template: around each prompt that is given as text; None puts nothing there.
        control: the tokens that a person's text may spell without meaning them; None where all are meant.
    """

    render: Render
    prompt_template: str | None
    control: SpeltTokens | None

    def __call__(self, messages: list[Message], **values: Any) -> str:
        given, own = self.marked(messages), self.marked(values)
        return checked_marks(self.render(given, **own), (given, own))

    def prompt(self, text: str) -> str:
        if self.prompt_template is None or not text.strip():
            return text
        return self.prompt_template.replace(PROMPT_PLACE, text)

    def response(self, context: list[Message], message: Message, prompt: str, **values: Any) -> str:
        if not isinstance(self.render, ModelRender):
            return str(message["content"])
        given, own = (self.marked(context), self.marked(message), prompt), self.marked(values)
        return checked_marks(self.render.response(*given, **own), (given, own))

    def ended(self, response: str) -> str:
        return self.render.ended(response) if isinstance(self.render, ModelRender) else response

    def unclosed_tag(self, prompt: str, response: str) -> str | None:
        return self.render.unclosed_tag(prompt, response) if isinstance(self.render, ModelRender) else None

    def marked(self, value: Any) -> Any:
        """The same, with what spells a control token marked as letters."""
        return value if self.control is None else self.control.marked_within(value)

    def marked_row(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The same of the fields of a row, under their names."""
        return {name: self.marked(value) for name, value in fields.items()}

    def template_note(self, rules: ReadingSettings) -> str | None:
        """A sentence about a prompt template that is not the settings', or not the model's."""
        own = self.render.prompt_template if isinstance(self.render, ModelRender) else None
        if own is None or self.prompt_template is None or own == rules.prompt_template:
            return None
        if rules.prompt_template is None:
            return f"prompts given as text are written as the model was trained to read them: {own!r}."
        return f"prompts given as text are written as {rules.prompt_template!r}; the model was trained on {own!r}."


def written_texts(render: Render, rules: ReadingSettings) -> WrittenTexts:
    """By a file's rules; texts that are rendered already are taken as they are."""
    if rules.rendered:
        return WrittenTexts(render, None, None)
    if not isinstance(render, ModelRender):
        return WrittenTexts(render, rules.prompt_template, None)
    return WrittenTexts(render, rules.prompt_template or render.prompt_template, render.control)
