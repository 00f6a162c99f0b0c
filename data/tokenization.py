"""Records into token ids, and token ids into padded batches; numpy only.

A prompt and its response are tokenised apart and then joined: the sampler is given the prompt's ids alone, so every
stage sees the same boundary. Together they are the ids of the whole text, where no token of that crosses the boundary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from plumbob.configs.settings.data import LengthSettings
from plumbob.core.errors import UserError
from plumbob.data.batch import Batch
from plumbob.data.records import Demonstration, LabelledResponse, PreferencePair
from plumbob.data.texts.codec import TextCodec
from plumbob.data.texts.tokenizer import Tokenizer
from plumbob.data.texts.turns import ResponseEnds, control_tokens

T = TypeVar("T")
IGNORED_LABEL = -100
"""The label of a token that is not to be predicted (torch's own default for cross-entropy)."""


@dataclass(frozen=True)
class TokenSequence:
    """One sequence. `ids` int32 [T]; `loss_mask` bool [T], True on tokens to be learnt; `task` as of a `Dialogue`."""

    ids: NDArray[np.int32]
    loss_mask: NDArray[np.bool_]
    task: int = 0


@dataclass(frozen=True)
class TooLong:
    """Why a record does not fit: the part that is too long, and its length."""

    part: Literal["prompt", "response"]
    num_tokens: int


@dataclass(frozen=True)
class EncodedRecords(Generic[T]):
    """Records that fit, in their order; of all `num_rows` those `dropped` as too long, and a sentence about these."""

    records: tuple[T, ...]
    num_rows: int
    dropped: tuple[TooLong, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class TokenBatch(Batch):
    """Sequences padded on the right; rows stay as wide as the whole batch.

    Attributes:
        input_ids: int64 [B, T].
        attention_mask: bool [B, T], True on real tokens; padding is known by this alone, never by its id.
        loss_mask: bool [B, T], True on tokens that are to be learnt.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.bool_]
    loss_mask: NDArray[np.bool_]


@dataclass(frozen=True)
class TaskBatch(Batch):
    """Sequences of several tasks: `tasks` int64 [B] has the number of each row's."""

    tokens: TokenBatch
    tasks: NDArray[np.int64]


@dataclass(frozen=True)
class PairBatch(Batch):
    """Row i of both is the same pair; the two may differ in width."""

    chosen: TokenBatch
    rejected: TokenBatch


def collate(sequences: Sequence[TokenSequence], pad_id: int) -> TokenBatch:
    """Pad to the longest. [B] sequences of [T_i] -> [B, max T_i]."""
    shape = (len(sequences), max(len(sequence.ids) for sequence in sequences))
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    attention_mask = np.zeros(shape, dtype=np.bool_)
    loss_mask = np.zeros(shape, dtype=np.bool_)
    for row, sequence in enumerate(sequences):
        length = len(sequence.ids)
        input_ids[row, :length] = sequence.ids
        attention_mask[row, :length] = True
        loss_mask[row, :length] = sequence.loss_mask
    return TokenBatch(input_ids, attention_mask, loss_mask)


def collate_tasks(sequences: Sequence[TokenSequence], pad_id: int) -> TaskBatch:
    """As `collate`, with the tasks that they are of."""
    return TaskBatch(collate(sequences, pad_id), np.array([sequence.task for sequence in sequences], dtype=np.int64))


def encode_prompt_ids(tokenizer: Tokenizer, prompts: Sequence[str]) -> list[NDArray[np.int32]]:
    """Ids [P] of each prompt as every stage and the sampler see it.

    A BOS stands in front where the tokenizer itself puts one, and only once: many chat templates write it too. No other
    special token is added, since the response follows.
    """
    bos = tokenizer.bos_token_id
    adds_bos = bos is not None and tokenizer("a")["input_ids"][:1] == [bos]
    front = np.array([bos] if adds_bos else [], dtype=np.int32)
    return [
        ids if ids[:1].tolist() == [bos] else np.concatenate([front, ids]) for ids in _plain_ids(tokenizer, prompts)
    ]


def encode_demonstrations(
    tokenizer: Tokenizer, records: Sequence[Demonstration], rules: LengthSettings, required: bool = True
) -> EncodedRecords[TokenSequence]:
    """Prompt, response and its end of every demonstration that fits the rules' limits; the loss is on the last two.

    The end is the EOS, or what the chat template ends the assistant's turn with where it opened one. It counts as one
    of the response's tokens. UserError if `required` and none fits.
    """
    encoded = [too_long([sequence], rules) or sequence for sequence in encode_turns(tokenizer, records)]
    return keep_fitting(encoded, "demonstrations", rules.max_prompt_tokens, rules.max_response_tokens, required)


def encode_turns(tokenizer: Tokenizer, records: Sequence[Demonstration]) -> list[TokenSequence]:
    """Each of them as `encode_demonstrations` has it, whatever its length."""
    return [one for (one,) in _encode(tokenizer, [(record.prompt, (record.response,)) for record in records])]


def too_long(sequences: Sequence[TokenSequence], rules: LengthSettings) -> TooLong | None:
    """What does not fit of sequences with one prompt: it, or the longest of what follows it."""
    num_prompt = int(sequences[0].loss_mask.argmax())
    if num_prompt > rules.max_prompt_tokens:
        return TooLong("prompt", num_prompt)
    longest = max(len(sequence.ids) for sequence in sequences) - num_prompt
    return TooLong("response", longest) if longest > rules.max_response_tokens else None


def encode_pairs(
    tokenizer: Tokenizer, records: Sequence[PreferencePair], rules: LengthSettings, required: bool = True
) -> EncodedRecords[tuple[TokenSequence, TokenSequence]]:
    """(chosen, rejected) of every pair of which both fit. UserError if `required` and none does."""
    fitted = _fit(tokenizer, [(record.prompt, (record.chosen, record.rejected)) for record in records], rules)
    encoded = [item if isinstance(item, TooLong) else (item[0], item[1]) for item in fitted]
    return keep_fitting(encoded, "pairs", rules.max_prompt_tokens, rules.max_response_tokens, required)


def encode_labelled(
    tokenizer: Tokenizer, records: Sequence[LabelledResponse], rules: LengthSettings, required: bool = True
) -> EncodedRecords[tuple[TokenSequence, bool]]:
    """Every response that fits, as a demonstration's, and whether it is good. UserError if `required` and none fits."""
    fitted = _fit(tokenizer, [(record.prompt, (record.response,)) for record in records], rules)
    encoded = [
        item if isinstance(item, TooLong) else (item[0], record.desirable)
        for item, record in zip(fitted, records, strict=True)
    ]
    return keep_fitting(encoded, "labelled responses", rules.max_prompt_tokens, rules.max_response_tokens, required)


def keep_fitting(
    encoded: Sequence[T | TooLong],
    what: str,
    max_prompt_tokens: int,
    max_response_tokens: int | None = None,
    required: bool = True,
    num_rows: int | None = None,
    others: tuple[str, ...] = (),
) -> EncodedRecords[T]:
    """Leave out what is too long, and say how many against which limit. UserError if `required` and nothing is left.

    Args:
        num_rows: how many there were, where that is not how many are given.
        others: sentences about what was left out before.
    """
    num_rows = len(encoded) if num_rows is None else num_rows
    long = tuple(item for item in encoded if isinstance(item, TooLong))
    limits = {
        "prompt": f"their prompt is longer than data.max_prompt_tokens={max_prompt_tokens}",
        "response": f"a response with its EOS is longer than data.max_response_tokens={max_response_tokens}",
    }
    lengths = {part: [item.num_tokens for item in long if item.part == part] for part in limits}
    notes = others + tuple(
        f"{len(found)} of {num_rows} {what} dropped, because {limits[part]} (the longest has {max(found)} tokens)."
        for part, found in lengths.items()
        if found
    )
    records = tuple(item for item in encoded if not isinstance(item, TooLong))
    if required and not records:
        raise UserError(f"no {what} are left to use: raise the limit or give shorter ones. {' '.join(notes)}".rstrip())
    return EncodedRecords(records, num_rows, long, notes)


def pack_texts(
    tokenizer: Tokenizer, texts: Sequence[str], block_tokens: int, rendered: bool = False
) -> list[TokenSequence]:
    """Documents in a row, cut into sequences of `block_tokens`, the last one shorter; every token is learnt.

    For a causal model an EOS ends each document (and the BOS of its prompts, if it has one, begins it). For an encoder,
    known by its CLS and SEP, a SEP ends each document and a CLS is set before each block, within `block_tokens`.
    Unless texts are `rendered`, the control tokens that they spell are letters.
    """
    if not rendered:
        control = control_tokens(tokenizer)
        texts = [control.marked(text) for text in texts]
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    is_encoder = cls is not None and sep is not None
    end = np.array([sep if is_encoder else tokenizer.eos_token_id], dtype=np.int32)
    documents = _plain_ids(tokenizer, texts) if is_encoder else encode_prompt_ids(tokenizer, texts)
    stream = np.concatenate([part for document in documents for part in (document, end)])
    front = np.array([cls] if is_encoder else [], dtype=np.int32)
    width = block_tokens - len(front)
    blocks = [np.concatenate([front, stream[start : start + width]]) for start in range(0, len(stream), width)]
    return [TokenSequence(block, np.ones(len(block), dtype=np.bool_)) for block in blocks]


def mask_tokens(
    batch: TokenBatch,
    special_ids: Sequence[int],
    mask_id: int,
    vocab_size: int,
    fraction: float,
    rng: np.random.Generator,
) -> tuple[TokenBatch, NDArray[np.int64]]:
    """Hide tokens for masked-word training (BERT, Devlin et al. 2018, arXiv 1810.04805, appendix A.1).

    Of each sequence round(fraction * n) of its n ordinary tokens are to be predicted, at least one: 80% of them become
    `mask_id`, 10% an ordinary token at random, 10% stay. Padding and `special_ids` are never chosen.

    Returns:
        The batch with changed ids, and labels int64 [B, T]: the true id where one is to be predicted, else -100.
    """
    ids = batch.input_ids
    is_ordinary = batch.attention_mask & ~np.isin(ids, special_ids)
    num_ordinary = is_ordinary.sum(axis=1, keepdims=True)
    num_chosen = np.minimum(num_ordinary, np.maximum(1, np.rint(fraction * num_ordinary)))
    draws = np.where(is_ordinary, rng.random(ids.shape), 2.0)
    is_chosen = draws.argsort(axis=1).argsort(axis=1) < num_chosen  # The rank of each draw within its row.
    kind = rng.random(ids.shape)
    words = rng.choice(np.setdiff1d(np.arange(vocab_size), special_ids), ids.shape)
    changed = np.where(is_chosen & (kind < 0.8), mask_id, ids)
    changed = np.where(is_chosen & (kind >= 0.9), words, changed)
    return replace(batch, input_ids=changed), np.where(is_chosen, ids, IGNORED_LABEL)


def _plain_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    result = TextCodec(tokenizer).encode(texts) if texts else []
    _check_embedded(tokenizer, result)
    return result


def _check_embedded(tokenizer: Tokenizer, encoded: Sequence[NDArray[np.int32]]) -> None:
    """Raises UserError for a token that the model has no embedding for, where it is known how many it has."""
    number = getattr(tokenizer, "num_embeddings", None)
    largest = max((int(ids.max()) for ids in encoded if len(ids)), default=0)
    if number is not None and largest >= number:
        raise UserError(
            f"a text has the token {tokenizer.convert_ids_to_tokens(largest)!r} of id {largest}, and the model has "
            f"embeddings for {number} tokens: take it out of the text, or resize the model with "
            f"model.resize_token_embeddings(len(tokenizer)) and save both again"
        )


def _fit(
    tokenizer: Tokenizer, records: Sequence[tuple[str, tuple[str, ...]]], rules: LengthSettings
) -> list[list[TokenSequence] | TooLong]:
    """Each prompt with each of its responses and an EOS, or what of it does not fit; every record has as many."""
    return [too_long(sequences, rules) or sequences for sequences in _encode(tokenizer, records)]


def _encode(tokenizer: Tokenizer, records: Sequence[tuple[str, tuple[str, ...]]]) -> list[list[TokenSequence]]:
    texts = [prompt for prompt, _ in records]
    prompts = encode_prompt_ids(tokenizer, texts)
    columns = zip(*(responses for _, responses in records), strict=True)
    responses = zip(*(_response_ids(tokenizer, texts, prompts, column) for column in columns), strict=True)
    return [[_joined(prompt, one) for one in own] for prompt, own in zip(prompts, responses, strict=True)]


def _response_ids(
    tokenizer: Tokenizer, prompts: Sequence[str], prompt_ids: Sequence[NDArray[np.int32]], responses: Sequence[str]
) -> list[NDArray[np.int32]]:
    """Of each response behind its prompt, with the token that ends it."""
    ends = ResponseEnds(tokenizer)
    encoded = TextCodec(tokenizer).encode_after(prompt_ids, [ends.without_end(response) for response in responses])
    result = [
        np.concatenate([ids, np.array([ends.end_id(prompt, response)], dtype=np.int32)])
        for prompt, response, ids in zip(prompts, responses, encoded, strict=True)
    ]
    _check_embedded(tokenizer, result)
    return result


def _joined(prompt_ids: NDArray[np.int32], response_ids: NDArray[np.int32]) -> TokenSequence:
    ids = np.concatenate([prompt_ids, response_ids])
    return TokenSequence(ids, np.arange(len(ids)) >= len(prompt_ids))
