"""Rows of files of any form as checks of a data set see them: prompt, responses, annotator (AuditedRow)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plumbob.configs.settings.data import ReadingSettings
from plumbob.core.errors import UserError
from plumbob.data.reading.feedback_fields import annotated_pair_of, ranking_of, scored_response_of
from plumbob.data.reading.fields import check_columns, demonstration_of, labelled_of, prompt_of, rename, text_of
from plumbob.data.reading.file_formats.delimited_text import typed
from plumbob.data.reading.file_formats.formats import FileRow, iterate_rows
from plumbob.data.reading.messages import conversation_in
from plumbob.data.reading.question import question_in
from plumbob.data.records import RowError
from plumbob.data.texts.chat_text import ASSISTANT_TURN, HUMAN_TURN, Render, RowRender, plain_dialogue
from plumbob.data.texts.written_texts import written_texts


@dataclass(frozen=True)
class AuditedRow:
    """A row that was understood.

    Attributes:
        label: file and number, such as "pairs.jsonl row 3".
        form: what the row is: pair, ranking, scored, labelled, demonstration, prompt or text.
        prompt: "" of a document.
        responses: of a pair or a ranking the best first.
        annotator: None where the row does not say.
        best_index: of a ranking that keeps the order in which responses were shown, where the best one stood, from 0.
    """

    label: str
    form: str
    prompt: str
    responses: tuple[str, ...] = ()
    annotator: str | None = None
    best_index: int | None = None

    @property
    def text(self) -> str:
        return "\n".join((self.prompt, *self.responses))

    @property
    def question(self) -> str:
        """The person's last turn of a transcript, or the prompt as it is."""
        _, turn, last = self.prompt.rpartition(HUMAN_TURN)
        return (last if turn else self.prompt).removesuffix(ASSISTANT_TURN).strip()


@dataclass(frozen=True)
class AuditedFile:
    """A file, a folder or a glob of files.

    Attributes:
        num_rows: in all.
        unread: labels of rows that are of no known form.
    """

    path: str
    rows: tuple[AuditedRow, ...]
    num_rows: int
    unread: tuple[str, ...]


def read_audited(path: str, rules: ReadingSettings, messages: Render = plain_dialogue) -> AuditedFile:
    """All rows that can be understood. UserError where the file cannot be read, or no row of it can.

    Args:
        messages: writes chat messages as text.
    """
    check_columns(rules.columns)
    render = written_texts(messages, rules)
    rows: list[AuditedRow] = []
    unread, num_rows, reason = list[str](), 0, ""
    for row in iterate_rows(path):
        num_rows += 1
        label = f"{row.file} row {row.number}"
        try:
            rows.append(audited_row(row, rules, render, label))
        except RowError as error:
            unread.append(label)
            reason = reason or str(error)
    if not rows:
        raise UserError(f"{path}: none of its {num_rows} rows can be read, such as {unread[0]}: {reason}")
    return AuditedFile(path, tuple(rows), num_rows, tuple(unread))


def audited_row(row: FileRow, rules: ReadingSettings, render: RowRender, label: str) -> AuditedRow:
    """RowError where it is of no known form."""
    if row.fault:
        raise RowError(row.fault)
    fields = rename(row.fields, rules.columns)
    fields = typed(fields) if row.is_text else fields
    if "chosen" in fields and "rejected" in fields:
        return _pair(fields, render, label)
    if question_in(fields) is None and conversation_in(fields) is None and "text" in fields:
        return AuditedRow(label, "text", "", (text_of(fields, render),))
    parse = next((parse for name, parse in FORMS.items() if name in fields), _demonstration_or_prompt)
    return parse(fields, render, label)


Parse = Callable[[dict[str, Any], RowRender, str], AuditedRow]


def _pair(fields: dict[str, Any], render: RowRender, label: str) -> AuditedRow:
    pair = annotated_pair_of(fields, render, use_margin=False)
    return AuditedRow(label, "pair", pair.prompt, pair.responses, pair.annotator)


def _ranking(fields: dict[str, Any], render: RowRender, label: str) -> AuditedRow:
    found = ranking_of(fields, render)
    order = [name for name in ("ranks", "scores") if name in fields]
    best_index = None
    if order:
        values: Sequence[float] = fields[order[0]]
        best_index = values.index(max(values) if order[0] == "scores" else min(values))
    return AuditedRow(label, "ranking", found.prompt, found.responses, found.annotator, best_index)


def _scored(fields: dict[str, Any], render: RowRender, label: str) -> AuditedRow:
    found = scored_response_of(fields, render)
    return AuditedRow(label, "scored", found.prompt, (found.response,))


def _labelled(fields: dict[str, Any], render: RowRender, label: str) -> AuditedRow:
    found = labelled_of(fields, render)
    return AuditedRow(label, "labelled", found.prompt, (found.response,))


def _demonstration_or_prompt(fields: dict[str, Any], render: RowRender, label: str) -> AuditedRow:
    try:
        found = demonstration_of(fields, render)
    except RowError:
        return AuditedRow(label, "prompt", prompt_of(fields, render))
    return AuditedRow(label, "demonstration", found.prompt, (found.response,))


FORMS: Mapping[str, Parse] = {"answers": _ranking, "label": _labelled, "score": _scored, "rating": _scored}
"""What a row has beside its prompt -> how it is read."""
