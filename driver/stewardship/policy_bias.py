"""The bias of a policy, or of an encoder, measured in this process: CrowS-Pairs, BBQ, counterfactual prompts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from plumbob.configs.base import Dtype
from plumbob.configs.settings.models import ModelRef
from plumbob.core.activities import activities
from plumbob.core.errors import UserError
from plumbob.data.bias.bbq import BbqQuestion, bbq_values, read_bbq
from plumbob.data.bias.crows_pairs import CrowsPair, Values, crows_values, merged, read_crows_pairs
from plumbob.data.texts.chat_text import Message, Render, chat_renderer
from plumbob.driver.run_folder.made_policy import find_policy
from plumbob.driver.stewardship.bias_table import BiasMeasure, bias_table
from plumbob.driver.stewardship.counterfactual_responses import CounterfactualPrompts
from plumbob.models.loading import OpenedModel, OpenedPolicy, open_model, open_policy
from plumbob.models.masked_lm import open_encoder
from plumbob.models.sentence_likelihoods import CausalLikelihoods, masked_pair_likelihoods


@dataclass(frozen=True)
class PolicyBiasOptions:
    """What is measured, and how.

    Attributes:
        bbq: files of BBQ, one a category.
        generated: prompts that are answered with either group's terms; None of none.
        batch_size: texts in one forward.
    """

    crows_pairs: str | None = None
    bbq: tuple[str, ...] = ()
    generated: CounterfactualPrompts | None = None
    batch_size: int = 32
    dtype: Dtype = "float32"


def policy_bias(policy: str, against: str | None, options: PolicyBiasOptions) -> tuple[BiasMeasure, ...]:
    """Each measure of a policy, beside those of another where one is named.

    Args:
        policy, against: as `find_policy` takes them; an encoder for CrowS-Pairs alone.

    Raises:
        UserError: one cannot be loaded, a file cannot be read, or nothing is to be measured.
    """
    if options.crows_pairs is None and not options.bbq and options.generated is None:
        raise UserError("nothing to measure: give --crows-pairs=FILE, --bbq=FILE or --reward=MODEL")
    crows = None if options.crows_pairs is None else read_crows_pairs(options.crows_pairs)
    questions = tuple(question for path in options.bbq for question in read_bbq(path))
    measure = partial(_values, crows=crows, questions=questions, options=options)
    before = None if against is None else measure(against, "--against")
    return bias_table(measure(policy, "RUN_OR_FOLDER"), before)


def _values(
    name: str,
    setting: str,
    crows: Sequence[CrowsPair] | None,
    questions: Sequence[BbqQuestion],
    options: PolicyBiasOptions,
) -> Values:
    ref = ModelRef(find_policy(name), setting, dtype=options.dtype)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    opened = open_model(ref)
    if _is_masked(opened):
        return _of_encoder(ref, crows, bool(questions) or options.generated is not None, options.batch_size, device)
    policy, found = open_policy(ref), list[Values]()
    if crows is not None or questions:
        likelihoods = CausalLikelihoods(policy, options.batch_size, device)
        if crows is not None:
            found.append(_crows(crows, likelihoods.of_sentences))
        if questions:
            found.append(_bbq(questions, policy, likelihoods))
    if options.generated is not None:
        found.append(options.generated.values(policy))
    return merged(found)


def _is_masked(opened: OpenedModel) -> bool:
    named = opened.config.architectures or []
    if not named:
        return opened.config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return any("MaskedLM" in name for name in named)


def _of_encoder(
    ref: ModelRef, crows: Sequence[CrowsPair] | None, asks_more: bool, batch_size: int, device: str
) -> Values:
    if crows is None or asks_more:
        raise UserError(f"{ref}: is an encoder, which writes no text: it is measured by --crows-pairs alone")
    pairs = [(pair.more, pair.less) for pair in crows]
    with activities.during("measuring pseudo-log-likelihoods"):
        return crows_values(crows, masked_pair_likelihoods(open_encoder(ref), pairs, batch_size, device))


@activities.during("measuring log-likelihoods of CrowS-Pairs")
def _crows(pairs: Sequence[CrowsPair], likelihoods: Callable[[list[str]], Any]) -> Values:
    found = likelihoods([text for pair in pairs for text in (pair.more, pair.less)])
    return crows_values(pairs, np.asarray(found).reshape(-1, 2))


@activities.during("measuring answers to BBQ")
def _bbq(questions: Sequence[BbqQuestion], opened: OpenedPolicy, likelihoods: CausalLikelihoods) -> Values:
    """The answer whose text is the likeliest a token."""
    asked = asker_of(opened)
    responses = [asked(one.prompt, answer) for one in questions for answer in one.answers]
    found = likelihoods.of_responses(responses).reshape(-1, 3)
    return bbq_values(questions, found.argmax(axis=1))


def asker_of(opened: OpenedPolicy) -> Callable[[str, str], tuple[str, str]]:
    """(question, answer) -> prompt and response: by the chat template, or with "Answer:" on a line of its own."""
    render: Render | None = chat_renderer(opened.tokenizer) if opened.tokenizer.chat_template else None

    def asked(question: str, answer: str) -> tuple[str, str]:
        if render is None:
            return f"{question}\nAnswer:", f" {answer}"
        messages: list[Message] = [{"role": "user", "content": question}]
        return render(messages), answer

    return asked
