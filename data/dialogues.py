"""Dialogues into token ids: turns of which one continues the other become one sequence.

A turn is learnt behind the prompt that the policy is given for it. Where the next turn's prompt begins with all of
that, token by token, one sequence has both: to a causal model each token is the same there as in a sequence of its own.
Many templates write an earlier turn otherwise once others follow, such as without its thoughts: what follows is then a
sequence of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from plumbob.configs.settings.data import LengthSettings
from plumbob.configs.settings.tuning.any_tuning import AnyTuning
from plumbob.configs.settings.tuning.soft_prompts import MultitaskPromptTuning
from plumbob.core.errors import UserError
from plumbob.data.reading.field_values import shown
from plumbob.data.records import Dialogue, DialoguePair, RowError
from plumbob.data.texts.tokenizer import Tokenizer
from plumbob.data.tokenization import (
    EncodedRecords,
    TokenSequence,
    TooLong,
    encode_turns,
    keep_fitting,
    too_long,
)

OTHERWISE = (
    "once others follow it the chat template, or the tokenizer, writes a turn otherwise, as without its thoughts"
)

RECORDS_AT_ONCE = 1024
"""Each turn has all before it: of more records at once they would fill the memory."""


def encode_dialogues(
    tokenizer: Tokenizer, records: Sequence[Dialogue], rules: LengthSettings, required: bool = True
) -> EncodedRecords[TokenSequence]:
    """Every turn that fits the rules' limits, as `encode_demonstrations` has it, in as few sequences as have them all.

    `num_rows` and what is too long are counts of turns. UserError if `required` and none fits.
    """
    encoded: list[TokenSequence | TooLong] = []
    num_turns = sum(len(record.turns) for record in records)
    num_split = num_parts = 0
    for start in range(0, len(records), RECORDS_AT_ONCE):
        some = records[start : start + RECORDS_AT_ONCE]
        turns = iter(encode_turns(tokenizer, [turn for record in some for turn in record.turns]))
        for record in some:
            own = [(turn, too_long([turn], rules)) for turn in islice(turns, len(record.turns))]
            joined = join_turns([turn for turn, excess in own if excess is None])
            sequences = [replace(one, task=record.task) for one in joined]
            encoded += [*sequences, *(excess for _, excess in own if excess is not None)]
            if len(sequences) > 1:
                num_split, num_parts = num_split + 1, num_parts + len(sequences)
    what = "demonstrations" if num_turns == len(records) else "assistant turns"
    kept = keep_fitting(encoded, what, rules.max_prompt_tokens, rules.max_response_tokens, required, num_turns)
    note = (
        f"{num_split:,} of {len(records):,} conversations are learnt as {num_parts:,} sequences: {OTHERWISE}, and each "
        f"is learnt behind the prompt that the policy is given for it."
    )
    return replace(kept, notes=(*kept.notes, note)) if num_split else kept


def encode_dialogue_pairs(
    tokenizer: Tokenizer, records: Sequence[DialoguePair], rules: LengthSettings, required: bool = True
) -> EncodedRecords[tuple[TokenSequence, TokenSequence]]:
    """(chosen, rejected) of every pair of which both are one sequence and fit: the prompt, and all behind it.

    Behind the prompt the turns of the assistant's are learnt. UserError if `required` and there is no such pair.
    """
    encoded: list[tuple[TokenSequence, TokenSequence] | TooLong] = []
    for start in range(0, len(records), RECORDS_AT_ONCE):
        some = records[start : start + RECORDS_AT_ONCE]
        dialogues = [side for record in some for side in (record.chosen, record.rejected)]
        turns = iter(encode_turns(tokenizer, [turn for one in dialogues for turn in one.turns]))
        sides = [join_turns(list(islice(turns, len(one.turns)))) for one in dialogues]
        for chosen, rejected in zip(sides[::2], sides[1::2], strict=True):
            if len(chosen) == len(rejected) == 1:
                encoded.append(too_long([chosen[0], rejected[0]], rules) or (chosen[0], rejected[0]))
    num_split = len(records) - len(encoded)
    note = (
        f"{num_split:,} of {len(records):,} pairs dropped: {OTHERWISE}, so that all that the policy is to write of one "
        f"is no one sequence."
    )
    limits = rules.max_prompt_tokens, rules.max_response_tokens
    return keep_fitting(encoded, "pairs", *limits, required, len(records), (note,) if num_split else ())


def join_turns(turns: Sequence[TokenSequence]) -> list[TokenSequence]:
    """Turns of one dialogue, in their order, those joined of which one continues the other."""
    sequences: list[TokenSequence] = []
    for turn in turns:
        if sequences and _continues(turn, sequences[-1]):
            before = sequences[-1].loss_mask
            mask = np.concatenate([before, turn.loss_mask[len(before) :]])
            sequences[-1] = TokenSequence(turn.ids, mask)
        else:
            sequences.append(turn)
    return sequences


def _continues(turn: TokenSequence, before: TokenSequence) -> bool:
    """Whether the turn's prompt begins with the whole sequence before it."""
    length = len(before.ids)
    return not turn.loss_mask[:length].any() and np.array_equal(turn.ids[:length], before.ids)


def task_reader(tuning: AnyTuning) -> Callable[[dict[str, Any]], int] | None:
    """A row -> the number of its task, in the order of the settings; None where there is one alone.

    It raises RowError where a row names none of them.
    """
    if not isinstance(tuning, MultitaskPromptTuning):
        return None
    numbers = {name: number for number, name in enumerate(tuning.tasks)}

    def task_of(row: dict[str, Any]) -> int:
        found = row.get(tuning.task_column)
        if not isinstance(found, str) or found not in numbers:
            raise RowError(
                f"'{tuning.task_column}' (policy.tuning.task_column): expected one of policy.tuning.tasks, "
                f"{', '.join(numbers)}; found {shown(found)}"
            )
        return numbers[found]

    return task_of


def check_tasks_have_rows(tuning: AnyTuning, sequences: Sequence[TokenSequence]) -> None:
    """Raises UserError when nothing would be learnt of a task."""
    if not isinstance(tuning, MultitaskPromptTuning):
        return
    present = {sequence.task for sequence in sequences}
    absent = [name for number, name in enumerate(tuning.tasks) if number not in present]
    if absent:
        named = ", ".join(absent)
        raise UserError(
            f"policy.tuning.tasks: no demonstration that is learnt is of {named}: take that out, or give some"
        )
