"""Files into records: demonstrations, preference pairs, labelled responses, prompts and texts.

Rows that are malformed are refused or, by `data.bad_rows=skip`, skipped; rows with nothing in them are dropped. Both
are counted, and reported in `notes`. The field names that are recognised are those of `data.reading.fields` and, of
human feedback, `data.reading.feedback_fields`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from plumbob.configs.settings.data import LearntTurns, ReadingSettings
from plumbob.core.errors import UserError
from plumbob.data.reading.conversations import written_prompt
from plumbob.data.reading.delimited_text import typed
from plumbob.data.reading.feedback_fields import annotated_pair_of, ranking_of, scored_response_of
from plumbob.data.reading.field_values import Fields
from plumbob.data.reading.fields import (
    check_columns,
    demonstration_of,
    dialogue_of,
    dialogue_pair_of,
    labelled_of,
    pair_of,
    prompt_of,
    rename,
    text_of,
)
from plumbob.data.reading.formats import FileRow, iterate_rows, list_files
from plumbob.data.reading.messages import messages_in
from plumbob.data.reading.used_columns import (
    BlankColumns,
    LeftOutRows,
    UsedColumns,
    WatchedTemplate,
    spelling_note,
)
from plumbob.data.records import (
    Demonstration,
    Dialogue,
    DialoguePair,
    LabelledResponse,
    PreferencePair,
    Prompt,
    Ranking,
    RowError,
    ScoredResponse,
    make_prompt,
    opening_digest,
    prompt_id_of,
)
from plumbob.data.texts.chat import Message, Render, RowRender
from plumbob.data.texts.control_tokens import unmarked_within
from plumbob.data.texts.written_texts import written_texts

T = TypeVar("T")


@dataclass(frozen=True)
class ReadRecords(Generic[T]):
    """What a file held.

    Attributes:
        records: in the order of the file.
        num_rows: rows in the file; all that follow add up to it together with the records.
        num_skipped_malformed: rows that could not be understood.
        num_empty: rows whose prompt, response or text is blank.
        num_duplicate: prompts that stood in an earlier row, and pairs whose two responses are the same.
        notes: sentences for a person about what was left out, columns too.
    """

    records: tuple[T, ...]
    num_rows: int
    num_skipped_malformed: int
    num_empty: int
    num_duplicate: int
    notes: tuple[str, ...]


def no_chat(messages: list[Message], **values: Any) -> str:
    raise UserError("chat messages are not plain text: expected a field 'text', or a prompt and a response as text")


def read_texts(path: str, rules: ReadingSettings, render: Render = no_chat) -> ReadRecords[str]:
    """Documents for pre-training: `text`, or a prompt with its response. UserError as for the other readers."""
    return _read(path, rules, render, text_of, lambda text: (text,), num_learnt=lambda _: 0)


def read_demonstrations(path: str, rules: ReadingSettings, render: Render) -> ReadRecords[Demonstration]:
    """Prompts with a response to imitate.

    UserError when a file is missing, empty or damaged, when rows are malformed and `rules.bad_rows` is "refuse", when
    messages need a chat template that the tokenizer lacks, and when no row is left.
    """
    return _read(path, rules, render, demonstration_of, lambda record: (record.prompt, record.response))


def read_dialogues(
    path: str,
    rules: ReadingSettings,
    render: Render,
    learnt_turns: LearntTurns,
    task_of: Callable[[dict[str, Any]], int] | None = None,
) -> ReadRecords[Dialogue]:
    """The same, of whose conversations the last turn of the assistant's is imitated, or all; `task_of` numbers the task
    of a row, where there are several. UserError as above."""
    return _read(
        path,
        rules,
        render,
        lambda fields, watched: dialogue_of(fields, watched, learnt_turns),
        lambda record: record.texts,
        num_learnt=lambda record: len(record.turns),
        with_row=None if task_of is None else lambda record, row: replace(record, task=task_of(row)),
    )


SAME_RESPONSE = "dropped, because chosen and rejected are the same response"


def read_pairs(path: str, rules: ReadingSettings, render: Render) -> ReadRecords[PreferencePair]:
    """Preference pairs; a pair of two equal responses prefers nothing and is dropped. UserError as above."""
    return _read(path, rules, render, pair_of, lambda record: record.texts, _prefers_nothing, SAME_RESPONSE)


def read_dialogue_pairs(path: str, rules: ReadingSettings, render: Render) -> ReadRecords[DialoguePair]:
    """The same, also those whose sides part before their last turns. UserError as above."""
    return _read(
        path,
        rules,
        render,
        dialogue_pair_of,
        lambda record: record.texts,
        _prefers_nothing,
        SAME_RESPONSE,
        lambda record: len(record.rejected.turns),
    )


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
    return _read(
        path,
        rules,
        render,
        parse,
        lambda record: (record.prompt, *record.responses),
        lambda record: len(set(record.responses)) < len(record.responses),
        "dropped, because two of their responses are the same",
    )


def read_scored_responses(path: str, rules: ReadingSettings, render: Render) -> ReadRecords[ScoredResponse]:
    """Responses with an absolute score each. UserError as above."""
    return _read(path, rules, render, scored_response_of, lambda record: (record.prompt, record.response))


def read_labelled(path: str, rules: ReadingSettings, render: Render) -> ReadRecords[LabelledResponse]:
    """Responses that are each labelled good or bad. UserError as above."""
    return _read(path, rules, render, labelled_of, lambda record: (record.prompt, record.response))


Opening = Callable[[dict[str, Any]], list[Message] | None]
"""The row of a prompt -> the messages with which an environment opens an episode on it; None for the row's own."""

PROMPT_ROW = "prompt_row"
"""Where, in a file of prompts that are rendered already, each one's row stands as it was."""


def read_prompts(
    path: str, rules: ReadingSettings, render: Render, keeps_rows: bool = False, opening: Opening | None = None
) -> ReadRecords[Prompt]:
    """Prompts, each once, of a file of prompts or of any file above. UserError as above.

    Args:
        keeps_rows: each prompt is to have its row, by the names of `data.columns` and else those of the file.
        opening: makes the prompts, in place of what the rows have of them; None where the rows have them. RowError
            where it cannot. An episode is of the whole row: prompts that are alike, of other rows, are others then.
    """

    def prompt_in(fields: Fields, watched: RowRender) -> Prompt:
        messages = None if opening is None else opening(unmarked_within(dict(fields)))
        if messages is None:
            return make_prompt(prompt_of(fields, watched))
        text = written_prompt(fields, messages_in("the environment's opening", messages), watched)
        return replace(make_prompt(text), opening=opening_digest(messages))

    def with_row(prompt: Prompt, row: dict[str, Any]) -> Prompt:
        if opening is None:
            return replace(prompt, row=row.get(PROMPT_ROW, row) if rules.rendered else row)
        content = json.dumps([prompt.text, row], sort_keys=True, default=str)
        return replace(prompt, row=row, prompt_id=prompt_id_of(content))

    seen: set[str] = set()

    def is_repeated(prompt: Prompt) -> bool:
        known = prompt.prompt_id in seen
        seen.add(prompt.prompt_id)
        return known

    return _read(
        path,
        rules,
        render,
        prompt_in,
        lambda record: (record.text,),
        is_repeated,
        "dropped, because their prompt stands in an earlier row",
        num_learnt=lambda _: 0,
        with_row=with_row if keeps_rows else None,
    )


def _read(
    path: str,
    rules: ReadingSettings,
    render: Render,
    parse: Callable[[Fields, RowRender], T],
    texts: Callable[[T], tuple[str, ...]],
    is_duplicate: Callable[[T], bool] = lambda _: False,
    duplicate_reason: str = "",
    num_learnt: Callable[[T], int] = lambda _: 1,
    with_row: Callable[[T, dict[str, Any]], T] | None = None,
) -> ReadRecords[T]:
    """Read all rows and sort them by what they are good for.

    Args:
        parse: fields and how their messages become text -> record; RowError on a malformed row.
        texts: the record's parts, none of which may be blank.
        is_duplicate: whether a record with nothing blank in it is one too many; asked once a record, in order.
        num_learnt: how many turns of the assistant's a record has that are learnt.
        with_row: what keeps the whole row in the record; None keeps it nowhere.
    """
    check_columns(rules.columns)
    records: list[T] = []
    left_out, spelling, num_rows = LeftOutRows(), list[str](), 0
    columns, written, blank = UsedColumns(rules.columns), written_texts(render, rules), BlankColumns(rules.columns)
    watched = WatchedTemplate(written)
    is_one_file = list_files(path) == [Path(path).expanduser()]
    for row in iterate_rows(path):
        num_rows += 1
        label = f"row {row.number}" if is_one_file else f"{row.file} row {row.number}"
        watched.begin_row()
        try:
            fields = _fields_of(row, rules, blank, label)
            marked = written.marked_row(fields)
            record = parse(columns.watch(row.fields, marked), watched)
            if with_row is not None:
                record = with_row(record, columns.take_all(fields))
            spelling += [] if marked == fields else [label]
        except RowError as error:
            left_out.malformed.append(f"{label}: {error}")
            continue
        except UserError as error:
            raise UserError(f"{path}: {label}: {error}") from None
        if not all(text.strip() for text in texts(record)):
            left_out.empty.append(label)
        elif is_duplicate(record):
            left_out.duplicate.append(label)
        else:
            records.append(record)
            watched.end_row(num_learnt(record))
    left_out.check(path, rules, num_rows)
    notes = left_out.notes(path, num_rows, duplicate_reason)
    if not records:
        raise UserError(f"{path}: no row can be used. {' '.join(notes)}")
    found = (
        columns.note(),
        blank.note(),
        *watched.notes(num_rows),
        written.template_note(rules),
        spelling_note(spelling, num_rows),
    )
    notes += [f"{path}: {note}" for note in found if note is not None]
    return ReadRecords(
        tuple(records), num_rows, len(left_out.malformed), len(left_out.empty), len(left_out.duplicate), tuple(notes)
    )


def _fields_of(row: FileRow, rules: ReadingSettings, blank: BlankColumns, label: str) -> Fields:
    if row.fault:
        raise RowError(row.fault)
    fields = rename(blank.filled(row.fields, row.nulls, label), rules.columns)
    return typed(fields) if row.is_text else fields
