"""Prompts of a run as its reward models read them (RewardPrompts): each model in the form that it was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from plumbob.configs.settings.models import ModelRef
from plumbob.configs.settings.rewards import Reward
from plumbob.data.records import RowError
from plumbob.data.rendered_rows import RowPart, shortened
from plumbob.data.texts.chat_text import Message, ModelRender, ObservedRender, Render
from plumbob.data.texts.control_tokens import SpeltTokens, unmarked
from plumbob.data.texts.turns import control_tokens
from plumbob.reward.reward_models.bert_model import open_reward_tokenizer
from plumbob.reward.reward_models.dialogue_form import FORM_FILE, MAX_ENDING, DialogueForm, load_form
from plumbob.reward.scorer import Score, Scorer, ScoreRequest


@dataclass(frozen=True)
class FormReaders:
    """Reward models that read messages in one form.

    Attributes:
        render: writes messages in it.
        control: the models' control tokens, which are letters where a message spells them.
    """

    render: Render
    refs: tuple[ModelRef, ...]
    control: SpeltTokens

    def written(self, messages: list[Message], **values: Any) -> str:
        """Raises RowError, which names the first model."""
        try:
            return self.render(self.control.marked_within(messages), **values)
        except RowError as error:
            raise RowError(f"for {self.refs[0]}: {error}") from error


class ContentRender(ObservedRender):
    """Another render, by which a response is its message's content."""

    def response(self, context: list[Message], message: Message, prompt: str, **values: Any) -> str:
        return str(message["content"])


class RewardPrompts:
    """The prompts of a run as the reward models of one group of scorers read them.

    Messages are written for each model in its own form. A model of which no form for messages is known is given them in
    that of the first that has one.
    """

    def __init__(self, reward: Reward) -> None:
        self._refs = reward.models
        self._forms = {ref: load_form(ref) for ref in self._refs}
        self._readers = _readers(self._forms)
        self._texts: dict[str, Mapping[str, str]] = {}
        self._from_messages: set[str] = set()

    def beside(self, render: Render) -> Render:
        """The policy's render; what it writes is remembered beside the same messages in the reward models' forms."""

        def both(messages: list[Message], **values: Any) -> str:
            text = render(messages, **values)
            if not values.get("add_generation_prompt", True):
                return text
            read = unmarked(text)
            self._from_messages.add(read)
            if read not in self._texts:
                self._texts[read] = self.written(messages, **values)
            return text

        return ObservedRender(render, both)

    def instead_of(self, render: Render) -> Render:
        """What reads messages for the reward models alone: in the form of the first that has one, beside which each
        model's own is remembered, or by `render` where none has.

        Where their forms differ, a response is its message's content alone, whatever a form writes before it.
        """
        own = self._readers[0].render if self._readers else render
        beside = self.beside(own)
        template = render.prompt_template if isinstance(render, ModelRender) else None
        observed = ContentRender if len(self._readers) > 1 else ObservedRender
        return observed(own, beside, template)

    def written(self, messages: list[Message], **values: Any) -> dict[str, str]:
        """By the models' names, chat messages in each one's form, opened for the response; empty where there is none.

        What is spelt like one of the models' control tokens in the messages is marked as letters. RowError where a form
        does not write them.
        """
        texts = [(readers, readers.written(messages, **values)) for readers in self._readers]
        return {ref.name: text for readers, text in texts for ref in readers.refs}

    def form_prompts(self, prompt: str) -> Mapping[str, str]:
        """A prompt of the policy's from messages, as `written` writes them; empty of any other."""
        return self._texts.get(unmarked(prompt), {})

    def parts(self, prompt: str) -> tuple[RowPart, ...]:
        """How the models read a prompt of the policy's, for a person; nothing where they read what the policy does."""
        settings_by_text: dict[str, list[str]] = {}
        for ref in self._refs:
            settings_by_text.setdefault(self._read_by(ref, prompt), []).append(ref.setting)
        return tuple(
            RowPart(f"as {' and '.join(dict.fromkeys(settings))} reads it", shortened(text), False)
            for text, settings in settings_by_text.items()
            if text != prompt
        )

    def notes(self, prompts: Sequence[str]) -> tuple[str, ...]:
        """Sentences about reward models that may never have seen prompts like these, which are the policy's."""
        notes = (self._note(ref, form, prompts) for ref, form in self._forms.items())
        return tuple(note for note in notes if note is not None)

    def _read_by(self, ref: ModelRef, prompt: str) -> str:
        return unmarked(self.form_prompts(prompt).get(ref.name, prompt))

    def _note(self, ref: ModelRef, form: DialogueForm | None, prompts: Sequence[str]) -> str | None:
        asked = [(self._read_by(ref, prompt), unmarked(prompt) in self._from_messages) for prompt in prompts]
        if form is None:
            template = "that of the others" if self._readers else "the policy's chat template"
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


def _readers(forms: Mapping[ModelRef, DialogueForm | None]) -> tuple[FormReaders, ...]:
    """The models by the forms in which they are given messages; none where no form for messages is known."""
    groups: list[tuple[DialogueForm, list[ModelRef]]] = []
    others = []
    for ref, form in forms.items():
        if form is None or form.chat_template is None:
            others.append(ref)
            continue
        same = next((refs for known, refs in groups if form.writes_as(known)), None)
        if same is None:
            groups.append((form, [ref]))
        else:
            same.append(ref)
    if groups:
        groups[0][1].extend(others)
    return tuple(
        FormReaders(form.render, tuple(refs), _control(refs)) for form, refs in groups if form.render is not None
    )


def _control(refs: Sequence[ModelRef]) -> SpeltTokens:
    return SpeltTokens([token for ref in refs for token in control_tokens(open_reward_tokenizer(ref)).ids])


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
            [replace(request, form_prompts=self._prompts.form_prompts(request.prompt)) for request in requests]
        )
