"""One row of each input of a run as the model sees it: its tokens as text, with what is learnt told apart."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from plumbob.data.texts.control_tokens import unmarked
from plumbob.data.texts.tokenizer import Tokenizer
from plumbob.data.tokenization import EncodedRecords, TokenSequence

T = TypeVar("T")
MAX_LETTERS = 1200
"""Of a part that is shown; of a longer one the middle is left out."""

NUM_TRIED = 32
"""Records among which one that fits the limits is looked for."""


@dataclass(frozen=True)
class RowPart:
    """A part of a row.

    Attributes:
        name: what it is, such as "prompt" or "chosen".
        text: special tokens and all; shortened.
        is_learnt: whether the loss is of its tokens.
        num_tokens: None before there is a tokenizer.
    """

    name: str
    text: str
    is_learnt: bool
    num_tokens: int | None = None


@dataclass(frozen=True)
class RenderedRow:
    """The first row of an input.

    Attributes:
        setting: what names the input, such as "data.pairs".
        num_records: that are used of it.
    """

    setting: str
    num_records: int
    parts: tuple[RowPart, ...]


def text_rows(setting: str, num_records: int, *parts: tuple[str, str, bool]) -> tuple[RenderedRow, ...]:
    """Of (name, text, is_learnt); nothing where there are no records."""
    shown = tuple(RowPart(name, shortened(text), is_learnt) for name, text, is_learnt in parts)
    return (RenderedRow(setting, num_records, shown),) if num_records else ()


def sequence_rows(
    setting: str, tokenizer: Tokenizer, records: Sequence[Sequence[TokenSequence]], names: Sequence[str]
) -> tuple[RenderedRow, ...]:
    """Records of sequences with one prompt: it, and what is learnt of each under the name given for it.

    Between the turns that are learnt of one sequence stands what the policy is prompted with for the next.
    """
    if not records:
        return ()
    prompt, *_ = _runs(tokenizer, records[0][0], "")
    parts = [] if prompt.is_learnt else [prompt]
    for name, sequence in zip(names, records[0], strict=True):
        runs = _runs(tokenizer, sequence, name)
        parts += runs if runs[0].is_learnt else runs[1:]
    return (RenderedRow(setting, len(records), tuple(parts)),)


def sequence_texts(tokenizer: Tokenizer, sequence: TokenSequence) -> tuple[str, str]:
    """What stands before the first learnt token, and all behind it but the token that ends it."""
    start = int(sequence.loss_mask.argmax())
    prompt, whole = decoded(tokenizer, sequence.ids[:start]), decoded(tokenizer, sequence.ids[:-1])
    # As in `_runs`.
    return prompt, whole.removeprefix(prompt) if whole.startswith(prompt) else decoded(
        tokenizer, sequence.ids[start:-1]
    )


def _runs(tokenizer: Tokenizer, sequence: TokenSequence, name: str) -> list[RowPart]:
    """The sequence cut where learning begins and ends; what is learnt is called `name`."""
    ids, mask = sequence.ids, sequence.loss_mask
    bounds = [0, *(np.flatnonzero(mask[1:] != mask[:-1]) + 1).tolist(), len(ids)]
    runs = []
    for start, stop in pairwise(bounds):
        # In its place: some tokenizers write a text's first token otherwise.
        before, until = decoded(tokenizer, ids[:start]), decoded(tokenizer, ids[:stop])
        text = until.removeprefix(before) if until.startswith(before) else decoded(tokenizer, ids[start:stop])
        is_learnt = bool(mask[start])
        runs.append(RowPart(name if is_learnt else "prompt", shortened(text), is_learnt, stop - start))
    return runs


def prompt_rows(
    setting: str, tokenizer: Tokenizer, prompts: Sequence[NDArray[Any]], others: Iterable[RowPart] = ()
) -> tuple[RenderedRow, ...]:
    """Prompts as token ids, nothing of which is learnt; `others` is how further models read the first of them."""
    if not prompts:
        return ()
    return (RenderedRow(setting, len(prompts), (token_part("prompt", tokenizer, prompts[0], False), *others)),)


def block_rows(
    setting: str, tokenizer: Tokenizer, blocks: Sequence[TokenSequence], is_learnt: bool
) -> tuple[RenderedRow, ...]:
    """Blocks of packed text."""
    if not blocks:
        return ()
    return (RenderedRow(setting, len(blocks), (token_part("text", tokenizer, blocks[0].ids, is_learnt),)),)


def token_part(name: str, tokenizer: Tokenizer, ids: Sequence[int] | NDArray[Any], is_learnt: bool) -> RowPart:
    return RowPart(name, shortened(decoded(tokenizer, ids)), is_learnt, len(ids))


def first_fitting(records: Iterable[T], encode: Callable[[list[T]], EncodedRecords[Any]]) -> Any | None:
    """The first of the records that fits its limits, encoded."""
    encoded = (encode([record]).records for record in islice(records, NUM_TRIED))
    return next((found[0] for found in encoded if found), None)


def decoded(tokenizer: Tokenizer, ids: Sequence[int] | NDArray[Any]) -> str:
    text: str = tokenizer.decode(
        [int(id_) for id_ in ids], skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return text


def shortened(text: str) -> str:
    text = unmarked(text)
    if len(text) <= MAX_LETTERS:
        return text
    half = MAX_LETTERS // 2
    return f"{text[:half]} ... {len(text) - 2 * half:,} letters ... {text[-half:]}"
