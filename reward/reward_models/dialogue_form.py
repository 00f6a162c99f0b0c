"""The form of dialogue that a reward model was trained on, stored with it, and prompts written in that form for it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from plumbob.configs.settings.models import ModelRef
from plumbob.configs.settings.rewards import Reward
from plumbob.core.atomic_files import flush, write_atomically
from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside
from plumbob.data.bounded_templates import template_trial
from plumbob.data.records import RowError
from plumbob.data.rendered_rows import RowPart, shortened
from plumbob.data.texts.chat import (
    PLAIN_CHAT_TEMPLATE,
    Message,
    ModelRender,
    ObservedRender,
    Render,
    TemplateRenderer,
    chat_renderer,
    plain_dialogue,
)
from plumbob.data.texts.control_tokens import SpeltTokens, unmarked
from plumbob.data.texts.tokenizer import Tokenizer
from plumbob.data.texts.turns import control_tokens
from plumbob.models.resolution import resolve_package_folder
from plumbob.reward.reward_models.bert_model import open_reward_tokenizer
from plumbob.reward.scorer import Score, Scorer, ScoreRequest

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


# ------------------------------------------------------------------------------------------------- prompts in the form


class RewardPrompts:
    """The prompts of a run as the reward models of one group of scorers read them.

    Raises:
        UserError: the models of an ensemble were trained on messages that different templates wrote.
    """

    def __init__(self, reward: Reward) -> None:
        self._refs = reward.models
        self._forms = {ref: load_form(ref) for ref in self._refs}
        written = {
            ref: form for ref, form in self._forms.items() if form is not None and form.chat_template is not None
        }
        self._form = first = next(iter(written.values()), None)
        other = next((ref for ref, form in written.items() if first and not form.writes_as(first)), None)
        if other is not None:
            raise UserError(
                f"{next(iter(written))} and {other} were trained on chat messages that different templates wrote "
                f"({FORM_FILE} in their folders), and an ensemble reads the same: give models of one form"
            )
        control = [control_tokens(open_reward_tokenizer(ref)) for ref in self._refs if first is not None]
        self._control = SpeltTokens([token for one in control for token in one.ids])
        self._texts: dict[str, str] = {}
        self._from_messages: set[str] = set()

    @property
    def render(self) -> Render | None:
        """Writes messages in the form; None where there is none for messages."""
        return None if self._form is None else self._form.render

    def beside(self, render: Render) -> Render:
        """The policy's render; what it writes is remembered beside the same messages in the reward models' form."""

        def both(messages: list[Message], **values: Any) -> str:
            text = render(messages, **values)
            if not values.get("add_generation_prompt", True):
                return text
            read = unmarked(text)
            self._from_messages.add(read)
            if read not in self._texts:
                try:
                    written = self.written(messages, **values)
                except RowError as error:
                    raise RowError(f"for {self._refs[0]}: {error}") from error
                self._texts |= {} if written is None else {read: written}
            return text

        return ObservedRender(render, both)

    def instead_of(self, render: Render) -> Render:
        """What reads messages for the reward models alone: in their form, or by `render` where they have none."""
        own = self.render or render

        def one(messages: list[Message], **values: Any) -> str:
            text = own(messages, **values)
            self._from_messages.add(unmarked(text))
            return text

        return ObservedRender(own, one, render.prompt_template if isinstance(render, ModelRender) else None)

    def written(self, messages: list[Message], **values: Any) -> str | None:
        """Chat messages in the form, opened for the response; None where there is none for messages.

        What is spelt like one of the models' control tokens in the messages is marked as letters.
        """
        own = self.render
        return None if own is None else own(self._control.marked_within(messages), **values)

    def form_prompt(self, prompt: str) -> str | None:
        """A prompt of the policy's from messages, as `written` writes them; None of any other."""
        return self._texts.get(unmarked(prompt))

    def read_as(self, prompt: str) -> str:
        """A prompt of the policy's as the reward models read it, for a person."""
        return unmarked(self._texts.get(unmarked(prompt), prompt))

    def parts(self, prompt: str) -> tuple[RowPart, ...]:
        """The same for a person; nothing where they read what the policy does."""
        text = self.read_as(prompt)
        named = " and ".join(dict.fromkeys(ref.setting for ref in self._refs))
        return () if text == prompt else (RowPart(f"as {named} reads it", shortened(text), False),)

    def notes(self, prompts: Sequence[str]) -> tuple[str, ...]:
        """Sentences about reward models that may never have seen prompts like these, which are the policy's."""
        asked = [(self.read_as(prompt), unmarked(prompt) in self._from_messages) for prompt in prompts]
        notes = (self._note(ref, form, asked) for ref, form in self._forms.items())
        return tuple(note for note in notes if note is not None)

    def _note(self, ref: ModelRef, form: DialogueForm | None, asked: Sequence[tuple[str, bool]]) -> str | None:
        """Of prompts as they are read, and whether they are from messages."""
        if form is None:
            template = "the policy's chat template" if self._form is None else "that of the others"
            note = (
                f"{ref}: nothing says in which form of dialogue it was trained (there is no {FORM_FILE} beside it, nor "
                f"a chat template): it is given chat messages as {template} writes them."
            )
            return note if any(is_chat for _, is_chat in asked) else None
        unlike = [one for one in asked if _is_unlike(form, *one)]
        if not unlike:
            return None
        prompt, is_chat = unlike[0]
        ends, so = (f", which ended with {form.ending!r}", " that do not end so") if form.ending else ("", "")
        return (
            f"{ref}: trained on {_kind(form.chat_template is not None)}{ends}, and here given prompts "
            f"({len(unlike):,} of {len(asked):,}) from {_kind(is_chat)}{so}, such as ...{prompt[-MAX_ENDING:]!r}: its "
            f"scores may mean little."
        )


def _is_unlike(form: DialogueForm, prompt: str, is_chat: bool) -> bool:
    """Whether a prompt, from messages or from text, is not in the form, as far as one can tell."""
    was_chat = form.chat_template is not None
    if was_chat and is_chat:  # It has been written in the form.
        return False
    return not prompt.endswith(form.ending) if form.ending else is_chat != was_chat


def _kind(is_chat: bool) -> str:
    return "chat messages" if is_chat else "texts"


class FormScorer:
    """A scorer that is given each prompt of the policy's as its reward models read it."""

    def __init__(self, scorer: Scorer, prompts: RewardPrompts) -> None:
        self._scorer, self._prompts = scorer, prompts

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        return self._scorer.score(
            [replace(request, form_prompt=self._prompts.form_prompt(request.prompt)) for request in requests]
        )
