"""The form of dialogue that a reward model was trained on, stored with it (DialogueForm)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from plumbob.configs.settings.models import ModelRef
from plumbob.core.atomic_files import flush, write_atomically
from plumbob.core.outside import from_outside
from plumbob.data.records import RowError
from plumbob.data.texts.bounded_templates import template_trial
from plumbob.data.texts.chat_text import (
    PLAIN_CHAT_TEMPLATE,
    Message,
    ObservedRender,
    Render,
    TemplateRenderer,
    chat_renderer,
    plain_dialogue,
)
from plumbob.data.texts.tokenizer import Tokenizer
from plumbob.models.resolution import resolve_package_folder
from plumbob.reward.reward_models.bert_model import open_reward_tokenizer

FORM_FILE = "dialogue_form.json"
PROBE = "what the user asks"
MIN_ENDING, MAX_ENDING = 4, 60


@dataclass(frozen=True)
class DialogueForm:
    """How the prompts that a reward model was trained on were written.

    Attributes:
        chat_template: what chat messages were written with; None where the prompts were texts.
        special_tokens: name -> text, for the template.
        ending: what every prompt ended with, such as "\\n\\nAssistant:"; "" where nothing is known of it.
    """

    chat_template: str | None
    special_tokens: Mapping[str, str]
    ending: str

    @property
    def render(self) -> Render | None:
        return None if self.chat_template is None else TemplateRenderer(self.chat_template, self.special_tokens)

    def writes_as(self, other: "DialogueForm") -> bool:
        """Whether messages become the same texts: tokens that the template does not name, such as for padding, may
        differ."""
        return self.chat_template == other.chat_template and self._named_tokens == other._named_tokens

    @property
    def _named_tokens(self) -> dict[str, str]:
        template = self.chat_template or ""
        return {name: token for name, token in self.special_tokens.items() if name in template}


class FormInUse(ObservedRender):
    """Renders a file's messages, and knows afterwards in which form its prompts are.

    Messages are written by the tokenizer's chat template, or `plain` where there is no tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer | None, plain: Render = plain_dialogue) -> None:
        render = plain if tokenizer is None else chat_renderer(tokenizer)
        super().__init__(render, render)
        self._tokenizer = tokenizer
        self._has_messages = False

    def __call__(self, messages: list[Message], **values: Any) -> str:
        self._has_messages = True
        return super().__call__(messages, **values)

    def form(self, prompts: Sequence[str]) -> DialogueForm:
        """Of the prompts that were read with it."""
        return self.form_of_messages() or DialogueForm(None, {}, common_ending(prompts))

    def form_of_messages(self) -> DialogueForm | None:
        """None where there were none."""
        if not self._has_messages:
            return None
        if self._tokenizer is None:
            return form_of(PLAIN_CHAT_TEMPLATE, {})
        return form_of(self._tokenizer.get_chat_template(), self._tokenizer.special_tokens_map)


@template_trial()
def form_of(chat_template: str, special_tokens: Mapping[str, Any]) -> DialogueForm:
    texts = {name: token for name, token in special_tokens.items() if isinstance(token, str)}
    try:
        asked = TemplateRenderer(chat_template, texts)([{"role": "user", "content": PROBE}])
    except RowError:  # It writes no dialogue as plain as this.
        asked = ""
    return DialogueForm(chat_template, texts, asked.rpartition(PROBE)[2])


def common_ending(prompts: Sequence[str]) -> str:
    """What all prompts end with, of at most `MAX_ENDING` letters; "" where it is too short to tell a form by."""
    backwards = [prompt[-MAX_ENDING:][::-1] for prompt in prompts]
    # What the first and the last in order have in common all between them have.
    same = takewhile(lambda letters: letters[0] == letters[1], zip(min(backwards), max(backwards), strict=False))
    ending = "".join(letter for letter, _ in same)[::-1]
    return ending if len(ending.strip()) >= MIN_ENDING else ""


def save_form(form: DialogueForm, folder: Path) -> None:
    """Write it into a reward model's folder, whole or not at all."""
    write_atomically(folder / FORM_FILE, json.dumps(asdict(form), indent=2, ensure_ascii=False) + "\n")
    flush(folder)


def load_form(ref: ModelRef) -> DialogueForm | None:
    """The form stored with a reward model, or that of its own tokenizer's chat template; None where there is neither.

    Raises:
        UserError: what is stored cannot be used.
    """
    folder = resolve_package_folder(ref.name, ref.setting)
    try:
        path = Path(cached_file(folder, FORM_FILE))
    except OSError:
        tokenizer = open_reward_tokenizer(ref)
        if tokenizer.chat_template is None:
            return None
        return form_of(tokenizer.get_chat_template(), tokenizer.special_tokens_map)
    with from_outside(
        f"{path}: cannot be read", "it has chat_template, special_tokens and ending, as a reward run writes"
    ):
        content = json.loads(path.read_text(encoding="utf-8"))
        template, tokens, ending = content["chat_template"], content["special_tokens"], content["ending"]
        if not (isinstance(template, str | None) and isinstance(ending, str) and isinstance(tokens, dict)):
            raise ValueError("a value is of another kind")
        return DialogueForm(template, tokens, ending)
