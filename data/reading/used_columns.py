"""Which rows and columns of a file are used and which are not: what it carries is used, or named as left out."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from plumbob.configs.settings.data import ReadingSettings
from plumbob.core.errors import UserError
from plumbob.data.reading.field_values import Fields, listed
from plumbob.data.reading.messages import TEMPLATE_VALUES, TOOLS
from plumbob.data.reading.question import BLANK_WHEN_MISSING
from plumbob.data.records import RowError
from plumbob.data.texts.bounded_templates import template_trial
from plumbob.data.texts.chat_text import Message
from plumbob.data.texts.written_texts import WrittenTexts

NUM_EXAMPLES = 3


@dataclass
class LeftOutRows:
    """Labels of the rows that did not become a record, such as "row 3"."""

    malformed: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    duplicate: list[str] = field(default_factory=list)

    def check(self, path: str, rules: ReadingSettings, num_rows: int) -> None:
        """Raises UserError where there are malformed rows that shall not be skipped."""
        num = len(self.malformed)
        if num and rules.bad_rows == "refuse":
            raise UserError(
                f"{path}: {num} of {num_rows} rows {'is' if num == 1 else 'are'} malformed. "
                f"{_examples(self.malformed)}. Fix the file, or set data.bad_rows=skip to skip and count such rows"
            )

    def notes(self, path: str, num_rows: int, duplicate_reason: str) -> list[str]:
        reasons = {
            "skipped, because they are malformed": self.malformed,
            "dropped, because a prompt, a response or a text in them is blank": self.empty,
            duplicate_reason: self.duplicate,
        }
        return [
            f"{path}: {len(labels)} of {num_rows} rows {reason}: {_examples(labels)}."
            for reason, labels in reasons.items()
            if labels
        ]


def spelling_note(labels: list[str], num_rows: int) -> str | None:
    """A sentence for a person about rows, by their labels, in which control tokens are spelt."""
    if not labels:
        return None
    return (
        f"control tokens of the model's are spelt in {len(labels)} of {num_rows} rows, and read as letters "
        f"({_examples(labels)}); set `rendered`, beside the setting of the file, to true where they are meant."
    )


def _examples(labels: list[str]) -> str:
    rest = len(labels) - NUM_EXAMPLES
    return "; ".join(labels[:NUM_EXAMPLES]) + (f"; and {rest} more" if rest > 0 else "")


@dataclass
class UsedColumns:
    """Over the rows of a file.

    Attributes:
        columns: our field name -> the file's column, where they differ.
    """

    columns: Mapping[str, str]
    _found: set[str] = field(default_factory=set)
    _used: set[str] = field(default_factory=set)

    def watch(self, row: Fields, fields: Fields) -> Fields:
        """The `fields` of a file's row under our names; those whose value is taken are used."""
        self._found.update(row)
        return _CountedFields(fields, self)

    def take(self, name: str) -> None:
        self._used.add(self.columns.get(name, name))

    def take_all(self, fields: Fields) -> dict[str, Any]:
        """All of a row's fields, which are used from now on."""
        for name in fields:
            self.take(name)
        return dict(fields)

    def note(self) -> str | None:
        """A sentence for a person about those that no row's record was made of."""
        unused = self._found - self._used
        if not unused:
            return None
        one = len(self._found) == 1
        return (
            f"{len(unused)} of {len(self._found)} column{'' if one else 's'} "
            f"{'is' if len(unused) == 1 else 'are'} not used: {listed(dict.fromkeys(unused))}."
        )


@dataclass(frozen=True)
class _CountedFields(Mapping[str, Any]):
    fields: Fields
    used: UsedColumns

    def __getitem__(self, name: str) -> Any:
        value = self.fields[name]
        self.used.take(name)
        return value

    def __contains__(self, name: object) -> bool:
        return name in self.fields

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)


class BlankColumns:
    """Columns that a row may be without: beside rows that have one, it is written in the same form, as where it is
    blank, from the first row on that has it, or has it as null."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._names = [name for name in BLANK_WHEN_MISSING if name not in columns.values()]
        self._first_rows: dict[str, str] = {}
        self._num_before = Counter[str]()

    def filled(self, fields: Fields, nulls: Collection[str], label: str) -> dict[str, Any]:
        """The fields of a row, named `label`, with those that are blank in it."""
        for name in self._names:
            if name in fields or name in nulls:
                self._first_rows.setdefault(name, label)
            elif name not in self._first_rows:
                self._num_before[name] += 1
        return dict.fromkeys(self._first_rows, "") | dict(fields)

    def note(self) -> str | None:
        """A sentence for a person about rows that were read before it was known that others have the column."""
        late = [(name, label) for name, label in self._first_rows.items() if self._num_before[name]]
        counts = [f"{self._num_before[name]:,} before {label} have no '{name}', which it has" for name, label in late]
        return (
            f"rows are written in two forms: {'; '.join(counts)}: give each row one, blank or null." if counts else None
        )


class TemplateUse:
    """A render over the rows of a file: what it does not write, opens in vain, and how many turns are learnt.

    Whether it writes something is tried: without it the text is the same. Once something has been written it is known.
    """

    def __init__(self, render: WrittenTexts) -> None:
        self._render = render
        self._written: set[str] = set()
        self._unwritten = Counter[str]()
        self._num_conversations = self._num_turns = self._num_learnt = self._num_unclosed = 0
        self.begin_row()

    def begin_row(self) -> None:
        self._row_unwritten: set[str] = set()
        self._row_turns: int | None = None
        self._row_unclosed: str | None = None

    def end_row(self, num_learnt: int) -> None:
        """The row has become a record, of which so many turns of the assistant's are learnt."""
        self._unwritten.update(self._row_unwritten)
        if self._row_turns is not None:
            self._num_conversations += 1
            self._num_turns += self._row_turns + 1
            self._num_learnt += num_learnt
        if self._row_unclosed is not None:
            self._num_unclosed += 1
            self._unclosed = self._row_unclosed

    def __call__(self, messages: list[Message], **values: Any) -> str:
        text = self._render(messages, **values)
        for name in values.keys() - {"add_generation_prompt"}:
            others = {key: value for key, value in values.items() if key != name}
            self._look(name if name == TOOLS else f"{TEMPLATE_VALUES}.{name}", text, messages, others)
        for name in {key for message in messages for key in message} - {"role", "content"}:
            without = [{key: value for key, value in message.items() if key != name} for message in messages]
            self._look(f"{name} of messages", text, without, values)
        if values.get("add_generation_prompt", True):
            self._row_turns = sum(message["role"] == "assistant" for message in messages)
        return text

    def prompt(self, text: str) -> str:
        return self._render.prompt(text)

    def response(self, context: list[Message], message: Message, prompt: str, **values: Any) -> str:
        response = self._render.response(context, message, prompt, **values)
        self._row_unclosed = self._row_unclosed or self._render.unclosed_tag(prompt, response)
        return response

    def ended(self, response: str) -> str:
        return self._render.ended(response)

    def unclosed_tag(self, prompt: str, response: str) -> str | None:
        return self._render.unclosed_tag(prompt, response)

    def notes(self, num_rows: int) -> tuple[str | None, ...]:
        """Sentences for a person, None where there is nothing to say."""
        return self._unwritten_note(), self._unclosed_note(num_rows), self._turns_note()

    def _unwritten_note(self) -> str | None:
        """A sentence for a person about what no row's text was made of."""
        rows = [
            f"{name} ({count} row{'' if count == 1 else 's'})"
            for name, count in sorted(self._unwritten.items())
            if name not in self._written
        ]
        return f"the chat template writes the same text without {', '.join(rows)}: left out." if rows else None

    def _turns_note(self) -> str | None:
        """A sentence about conversations of several assistant turns."""
        if self._num_learnt in (0, self._num_turns):
            return None
        which = (
            "of each conversation the last, to which those before it are the prompt"
            if self._num_learnt == self._num_conversations
            else "to each all that stands before it is the prompt"
        )
        return f"{self._num_learnt:,} of {self._num_turns:,} assistant turns are learnt: {which}."

    def _unclosed_note(self, num_rows: int) -> str | None:
        """A sentence about responses that are learnt as thoughts without an answer."""
        if not self._num_unclosed:
            return None
        return (
            f"{self._num_unclosed:,} of {num_rows:,} rows do not close the {self._unclosed} that the chat template "
            f"opens: their responses are learnt as what stands within it; close it in them, or "
            f"have the template open none."
        )

    def _look(self, name: str, text: str, messages: list[Message], values: Mapping[str, Any]) -> None:
        if name in self._written:
            return
        try:
            with template_trial():
                is_written = self._render(messages, **values) != text
        except RowError:
            is_written = True
        (self._written if is_written else self._row_unwritten).add(name)
