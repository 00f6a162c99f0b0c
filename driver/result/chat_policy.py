"""A policy that a person talks with (`ChatPolicy`): its dialogue so far, its response piece by piece as it is made."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from plumbob.configs.base import Dtype
from plumbob.configs.paths import absolute
from plumbob.configs.settings.models import ModelRef
from plumbob.configs.settings.workers import TransformersEngine
from plumbob.core.errors import UserError
from plumbob.data.records import RowError
from plumbob.data.texts.chat_text import HUMAN_TURN, Message, PlainDialogue, chat_renderer
from plumbob.data.texts.codec import TextCodec
from plumbob.data.texts.written_texts import WrittenTexts
from plumbob.data.tokenization import encode_prompt_ids
from plumbob.driver.run_folder.made_policy import find_policy, short_name
from plumbob.models.adapter import load_adapter
from plumbob.models.library.base_digest import known_base
from plumbob.models.loading import OpenedPolicy, open_policy
from plumbob.models.tuning.adapter_support import WHAT_PEFT_LOADS
from plumbob.models.tuning.methods import check_served
from plumbob.rollout.requests import response_seed
from plumbob.rollout.rollout_records import SampleRequest
from plumbob.rollout.samplers.sampler import BASE_VERSION, SamplerSpec
from plumbob.rollout.samplers.transformers_sampler import TransformersSampler

GREEDY = 1e-6
"""Logits that are divided by it leave the likeliest token alone."""

SPARED = 4
"""A response has room for all its tokens, or for this share of the model's positions, or older turns are forgotten."""

HALF_A_LETTER = "\ufffd"


@dataclass(frozen=True)
class ChatOptions:
    """How policies respond.

    Attributes:
        temperature: logits are divided by it; 0 takes the likeliest token each time.
        max_tokens: of one response.
        seed: of what is drawn; the same dialogue gets the same responses.
        dtype: of the weights.
        prompt_template: what each turn is written as, instead of by the chat template; None takes the model's own way.
    """

    temperature: float
    max_tokens: int
    seed: int
    dtype: Dtype = "float32"
    prompt_template: str | None = None


@dataclass(frozen=True)
class ChatDialogue:
    """What has been said.

    Attributes:
        system: the message that it begins with; None for none.
        turns: the person's and the policy's, one after the other.
        num_forgotten: turns of the person's that are no longer among them, since the dialogue would be too long.
    """

    system: Message | None = None
    turns: tuple[Message, ...] = ()
    num_forgotten: int = 0

    def followed_by(self, role: str, content: str) -> "ChatDialogue":
        return replace(self, turns=(*self.turns, {"role": role, "content": content}))


class ChatPolicy:
    """One side of a chat: several turns with one policy, which sees its own responses alone.

    Attributes:
        name: for people.
        notes: sentences about how it is talked with.
        dialogue: so far; an earlier one may be put back.
    """

    def __init__(
        self, name: str, opened: OpenedPolicy, sampler: TransformersSampler, version: int, options: ChatOptions
    ) -> None:
        self.name, self._sampler, self._version, self._options = name, sampler, version, options
        self._tokenizer, self._num_positions = opened.tokenizer, opened.num_positions
        self._codec = TextCodec(self._tokenizer)
        self.dialogue = ChatDialogue()
        render = chat_renderer(self._tokenizer)
        own = None if self._tokenizer.chat_template else render.prompt_template
        self._template = options.prompt_template or own
        self._is_plain = not self._tokenizer.chat_template and self._template is None
        written = PlainDialogue(render.control) if self._is_plain else render
        self._texts = WrittenTexts(written, self._template, render.control)
        self.notes = self._own_notes()

    def _own_notes(self) -> tuple[str, ...]:
        if self._is_plain:
            return (f"{self.name}: its tokenizer has no chat template: turns are written as Human: and Assistant:",)
        if self._template is not None:
            return (f"{self.name}: a turn is written as {self._template!r}, and seen without those before it",)
        return ()

    def reset(self, system: str | None = None) -> None:
        """Forget the dialogue; it begins with a system message where one is given.

        Raises:
            UserError: turns are written as a template that has no place for a system message.
        """
        if system and self._template is not None:
            raise UserError(
                f"{self.name}: a turn is written as {self._template!r}, which has no place for a system message: leave "
                f"it out, or write it into --prompt-template"
            )
        self.dialogue = ChatDialogue({"role": "system", "content": system} if system else None)

    def respond(self, text: str) -> Generator[str, None, None]:
        """What the policy writes, in pieces. However the iteration ends, what was written is the policy's turn.

        Where the dialogue has become too long its oldest turns are forgotten.

        Raises:
            UserError: its chat template refuses the dialogue, or the turn alone leaves no room for a response. The
                dialogue stays as it was.
        """
        try:
            asked, ids = self._fitting(self.dialogue.followed_by("user", text))
        except (RowError, UserError) as error:
            raise UserError(f"{self.name}: {error}") from error
        seed = response_seed(self._options.seed, "chat", len(asked.turns))
        shown = ""
        try:
            for written in self._written_so_far(SampleRequest("chat", "chat", 0, seed, "", ids, version=self._version)):
                settled, is_end = self._settled(written)
                if settled.startswith(shown) and len(settled) > len(shown):
                    piece, shown = settled[len(shown) :], settled
                    yield piece
                if is_end:
                    return
        finally:
            self._sampler.cancel()
            self.dialogue = asked.followed_by("assistant", shown.strip())

    def _settled(self, written: str) -> tuple[str, bool]:
        """What of the text is the response's whatever follows, and whether it has ended: a model without a template
        may write on as the person."""
        if not self._is_plain:
            return written, False
        if HUMAN_TURN in written:
            return written.partition(HUMAN_TURN)[0], True
        begun = next((n for n in range(len(HUMAN_TURN) - 1, 0, -1) if written.endswith(HUMAN_TURN[:n])), 0)
        return written[: len(written) - begun], False

    def _written_so_far(self, request: SampleRequest) -> Iterator[str]:
        """The response's text after each token that completes a letter, and at its end."""
        self._sampler.submit([request])
        while not (finished := self._sampler.poll()):
            ids = np.asarray(self._sampler.in_progress[0].token_ids, np.int32)
            written = self._codec.decode_after(request.prompt_ids, ids)
            if not written.endswith(HALF_A_LETTER):
                yield written
        yield finished[0].response

    def _fitting(self, dialogue: ChatDialogue) -> tuple[ChatDialogue, NDArray[np.int32]]:
        """The dialogue without the oldest turns where it would be too long, and its ids, int32 [P]. UserError as
        `respond`."""
        room = min(self._options.max_tokens, self._num_positions // SPARED)
        while True:
            [ids] = encode_prompt_ids(self._tokenizer, [self._prompt(dialogue)])
            if len(ids) + room <= self._num_positions:
                return dialogue, ids
            if len(dialogue.turns) == 1:
                raise UserError(
                    f"the turn has {len(ids)} tokens, and the model {self._num_positions} positions for it and the "
                    f"response: say it shorter"
                )
            dialogue = replace(dialogue, turns=dialogue.turns[2:], num_forgotten=dialogue.num_forgotten + 1)

    def _prompt(self, dialogue: ChatDialogue) -> str:
        if self._template is not None:
            return self._texts.prompt(str(self._texts.marked(dialogue.turns[-1]["content"])))
        return self._texts([*([dialogue.system] if dialogue.system else []), *dialogue.turns])


def open_chat(policy: str, beside: str | None, options: ChatOptions) -> tuple[ChatPolicy, ...]:
    """The policy, and the one beside it where one is asked for; an adapter's own base shares its weights.

    Args:
        policy, beside: as `find_policy` takes them; an empty `beside` is what the policy's run began from, or its base.

    Raises:
        UserError: one is no model that writes text, or cannot be loaded.
    """
    opened = _open(policy, "RUN_OR_FOLDER", options)
    sampler, version = _sampler_of(opened, options)
    name = short_name(opened.ref.name)
    sides = (ChatPolicy(name, opened, sampler, version, options),)
    if beside is None:
        return sides
    other = _open(beside or _began_from(opened), "--beside", options)
    other_name = short_name(other.ref.name)
    if other_name == name:
        other_name += " (beside)"
    if other.source.adapter is None and _is_base_of(other, opened):
        return (*sides, ChatPolicy(other_name, other, sampler, BASE_VERSION, options))
    return (*sides, ChatPolicy(other_name, other, *_sampler_of(other, options), options))


def _open(text: str, setting: str, options: ChatOptions) -> OpenedPolicy:
    opened = open_policy(ModelRef(find_policy(text), setting, dtype=options.dtype))
    check_served(opened, WHAT_PEFT_LOADS)
    return opened


def _sampler_of(opened: OpenedPolicy, options: ChatOptions) -> tuple[TransformersSampler, int]:
    """A sampler, and the version of the policy in it."""
    adapter = opened.source.adapter
    model = replace(opened.ref, name=absolute(opened.source.base), num_virtual_tokens=opened.num_virtual_tokens)
    spec = SamplerSpec(
        model=model,
        worker="chat",
        engine=TransformersEngine(),
        temperature=options.temperature or GREEDY,
        max_tokens=options.max_tokens,
        lora_rank=0 if adapter is None else 1,
        tokenizer=absolute(opened.source.tokenizer_folder),
        num_threads=torch.get_num_threads(),
    )
    sampler = TransformersSampler(spec)
    if adapter is None:
        return sampler, BASE_VERSION
    sampler.load(load_adapter(adapter))
    return sampler, sampler.version


def _is_base_of(base: OpenedPolicy, policy: OpenedPolicy) -> bool:
    """Whether the sampler of an adapter's samples the base too, read by the same tokenizer."""
    return (
        policy.source.adapter is not None
        and known_base(base.source.base) == known_base(policy.source.base)
        and policy.source.tokenizer_folder == policy.source.base
        and policy.num_virtual_tokens == 0
    )


def _began_from(opened: OpenedPolicy) -> str:
    # The pipeline's module, which knows of a stage what it began from, takes seconds to import.
    from plumbob.driver.default_baseline import began_from

    began = began_from(Path(opened.ref.name).resolve()) if Path(opened.ref.name).is_dir() else None
    if began is None and opened.source.adapter is not None:
        began = opened.source.base
    if began is None:
        raise UserError(f"--beside: {opened.ref.name} is a full model, and no run says what it began from: name one")
    return began
