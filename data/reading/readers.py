"""Files into records: demonstrations, preference pairs, labelled responses, prompts and texts.

Rows that are malformed are refused or, by `data.bad_rows=skip`, skipped; rows with nothing in them are dropped. Both
are counted, and reported in `notes` (`data.reading.row_sorting`). The field names that are recognised are those of
`data.reading.fields` and, of human feedback, `data.reading.feedback_fields`.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from plumbob.configs.settings.data import LearntTurns, ReadingSettings
from plumbob.core.errors import UserError
from plumbob.data.reading.conversations import written_prompt
from plumbob.data.reading.feedback_fields import annotated_pair_of, ranking_of, scored_response_of
from plumbob.data.reading.field_values import Fields
from plumbob.data.reading.fields import (
    demonstration_of,
    dialogue_of,
    dialogue_pair_of,
    labelled_of,
    pair_of,
    prompt_of,
    text_of,
)
from plumbob.data.reading.messages import messages_in
from plumbob.data.reading.row_sorting import ReadRecords, RecordKind, read_records
from plumbob.data.records import (
    Demonstration,
    Dialogue,
    DialoguePair,
    LabelledResponse,
    PreferencePair,
    Prompt,
    Ranking,
    ScoredResponse,
    make_prompt,
    opening_digest,
    prompt_id_of,
)
from plumbob.data.texts.chat_text import Message, Render, RowRender
from plumbob.data.texts.control_tokens import unmarked_within


def no_chat(messages: list[Message], **values: Any) -> str:
    raise UserError("chat messages are not plain text: expected a field 'text', or a prompt and a response as text")


def read_texts(path: str, rules: ReadingSettings, render: Render = no_chat) -> ReadRecords[str]:
    """Documents for pre-training: `text`, or a prompt with its response. UserError as for the other readers."""
    kind = RecordKind(text_of, lambda text: (text,), num_learnt=lambda _: 0)
    return read_records(path, rules, render, kind)


def read_demonstrations(path: str, rules: ReadingSettings, render: Render) -> ReadRecords[Demonstration]:
    """Prompts with a response to imitate.

    UserError when a file is missing, empty or damaged, when rows are malformed and `rules.bad_rows` is "refuse", when
    messages need a chat template that the tokenizer lacks, and when no row is left.
    """
    kind = RecordKind(demonstration_of, lambda record: (record.prompt, record.response))
    return read_records(path, rules, render, kind)


def read_dialogues(
    path: str,
    rules: ReadingSettings,
    render: Render,
    learnt_turns: LearntTurns,
    task_of: Callable[[dict[str, Any]], int] | None = None,
) -> ReadRecords[Dialogue]:
    """The same, of whose conversations the last turn of the assistant's is imitated, or all; `task_of` numbers the task
    of a row, where there are several. UserError as above."""
    kind = RecordKind(
        lambda fields, watched: dialogue_of(fields, watched, learnt_turns),
        lambda record: record.texts,
        num_learnt=lambda record: len(record.turns),
        with_row=None if task_of is None else lambda record, row: replace(record, task=task_of(row)),
    )
    return read_records(path, rules, render, kind)


SAME_RESPONSE = "dropped, because chosen and rejected are the same response"


def read_pairs(path: str, rules: ReadingSettings, render: Render) -> ReadRecords[PreferencePair]:
    """Preference pairs; a pair of two equal responses prefers nothing and is dropped. UserError as above."""
    kind = RecordKind(pair_of, lambda record: record.texts, _prefers_nothing, SAME_RESPONSE)
    return read_records(path, rules, render, kind)


def read_dialogue_pairs(path: str, rules: ReadingSettings, render: Render) -> ReadRecords[DialoguePair]:
    """The same, also those whose sides part before their last turns. UserError as above."""
    kind = RecordKind(
        dialogue_pair_of,
        lambda record: record.texts,
        _prefers_nothing,
        SAME_RESPONSE,
        lambda record: len(record.rejected.turns),
    )
    return read_records(path, rules, render, kind)


def _prefers_nothing(pair: PreferencePair | DialoguePair) -> bool:
    return pair.chosen == pair.rejected


def read_annotated_pairs(path: str, rules: ReadingSettings, render: Render, use_margin: bool) -> ReadRecords[Ranking]:
    """Preference pairs with their annotator, and with their margin if `use_margin`. UserError as above."""
    return _read_rankings(path, rules, render, lambda fields, watched: annotated_pair_of(fields, watched, use_margin))


def read_rankings(path: str, rules: ReadingSettings, render: Render) -> ReadRecords[Ranking]:
    """Rankings of two responses or more, without ties. UserError as above."""
    return _read_rankings(path, rules, render, ranking_of)


def _read_rankings(
    path: str, rules: ReadingSettings, render: Render, parse: Callable[[Fields, RowRender], Ranking]
) -> ReadRecords[Ranking]:
    kind = RecordKind(
        parse,
        lambda record: (record.prompt, *record.responses),
        lambda record: len(set(record.responses)) < len(record.responses),
        "dropped, because two of their responses are the same",
    )
    return read_records(path, rules, render, kind)


def read_scored_responses(path: str, rules: ReadingSettings, render: Render) -> ReadRecords[ScoredResponse]:
    """Responses with an absolute score each. UserError as above."""
    kind = RecordKind(scored_response_of, lambda record: (record.prompt, record.response))
    return read_records(path, rules, render, kind)


def read_labelled(path: str, rules: ReadingSettings, render: Render) -> ReadRecords[LabelledResponse]:
    """Responses that are each labelled good or bad. UserError as above."""
    kind = RecordKind(labelled_of, lambda record: (record.prompt, record.response))
    return read_records(path, rules, render, kind)


Opening = Callable[[dict[str, Any]], list[Message] | None]
"""The row of a prompt -> the messages with which an environment opens an episode on it; None for the row's own."""

PROMPT_ROW = "prompt_row"
"""Where, in a file of prompts that are rendered already, each one's row stands as it was."""


def read_prompts(
    path: str, rules: ReadingSettings, render: Render, keeps_rows: bool = False, opening: Opening | None = None
) -> ReadRecords[Prompt]:
    """Prompts, each once, of a file of prompts or of any file above. UserError as above.

    Args:
        keeps_rows: each prompt is to have its row, by the names of `data.columns` and else those of the file. What is
            asked is then the whole row: prompts that are alike, of other rows, are others.
        opening: makes the prompts, in place of what the rows have of them; None where the rows have them. RowError
            where it cannot.
    """

    def prompt_in(fields: Fields, watched: RowRender) -> Prompt:
        messages = None if opening is None else opening(unmarked_within(dict(fields)))
        if messages is None:
            return make_prompt(prompt_of(fields, watched))
        text = written_prompt(fields, messages_in("the environment's opening", messages), watched)
        return replace(make_prompt(text), opening=opening_digest(messages))

    def with_row(prompt: Prompt, row: dict[str, Any]) -> Prompt:
        kept = row.get(PROMPT_ROW, row) if opening is None and rules.rendered else row
        content = json.dumps([prompt.text, kept], sort_keys=True, default=str)
        return replace(prompt, row=kept, prompt_id=prompt_id_of(content))

    seen: set[str] = set()

    def is_repeated(prompt: Prompt) -> bool:
        known = prompt.prompt_id in seen
        seen.add(prompt.prompt_id)
        return known

    kind = RecordKind(
        prompt_in,
        lambda record: (record.text,),
        is_repeated,
        "dropped, because their prompt stands in an earlier row",
        num_learnt=lambda _: 0,
        with_row=with_row if keeps_rows else None,
    )
    found = read_records(path, rules, render, kind)
    num_again = len(found.records) - len({prompt.text for prompt in found.records})
    if not num_again or opening is not None:
        return found
    note = (
        f"{path}: {num_again} of {found.num_rows} rows have the prompt of an earlier row and differ from it in other "
        f"columns: each row is asked by itself."
    )
    return replace(found, notes=(*found.notes, note))
