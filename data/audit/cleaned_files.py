"""Files of data, cleaned: rows that should not be trained on left out, personal data replaced (`clean_files`)."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from plumbob.configs.settings.data import ReadingSettings
from plumbob.configs.settings.stewardship.data_checks import DataCheckSettings
from plumbob.core.activities import activities
from plumbob.core.atomic_files import make_folder, write_atomically
from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside
from plumbob.data.audit.audited_rows import AuditedRow, audited_row, read_audited
from plumbob.data.audit.benchmark_overlap import read_benchmark, shared_ngrams
from plumbob.data.audit.data_report import digests_of
from plumbob.data.audit.found_duplicates import duplicates_in, leaks_between
from plumbob.data.audit.label_quality import contradictory, identical
from plumbob.data.personal.personal_counts import counted
from plumbob.data.personal.personal_finder import personal_finder
from plumbob.data.personal.personal_span import PersonalSpan
from plumbob.data.personal.pseudonyms import Pseudonyms, full_names_in, strings_of, with_strings
from plumbob.data.reading.file_formats.delimited_text import typed
from plumbob.data.reading.file_formats.formats import FileRow, iterate_rows
from plumbob.data.records import RowError
from plumbob.data.texts.chat_text import plain_dialogue
from plumbob.data.texts.written_texts import written_texts

Reason = Literal["unread", "leak", "benchmark", "identical", "contradictory", "duplicate", "near-duplicate"]
REASONS: tuple[Reason, ...] = get_args(Reason)
"""Why a row is left out; a row of which several are true is counted under the first. Duplicates are looked for among
what is left then."""

CLEAN_JSON = "data_clean.json"


@dataclass(frozen=True)
class CleanedFiles:
    """What became of the files.

    Attributes:
        inputs, outputs: path, role, SHA-256, bytes and rows of each.
        left_out: reason -> rows.
        replaced: kind of personal data -> how often a pseudonym was put there; None where none was asked for.
        key_check: of the key of the pseudonyms: the same key has the same one. Nothing tells the key by it.
    """

    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    left_out: dict[str, int]
    replaced: dict[str, int] | None
    key_check: str | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Row:
    """A row with where it came from."""

    path: str
    row: FileRow
    audited: AuditedRow

    @property
    def fields(self) -> dict[str, Any]:
        """As JSON has them: a cell of CSV that stands for a number or a list is one."""
        given = typed(self.row.fields) if self.row.is_text else self.row.fields
        return given | dict.fromkeys(sorted(self.row.nulls))


def clean_files(
    files: Sequence[str],
    output: Path,
    heldout: Sequence[str] = (),
    checks: DataCheckSettings | None = None,
    reading: ReadingSettings | None = None,
    keep: Collection[Reason] = (),
    key: bytes | None = None,
) -> CleanedFiles:
    """Write each file's good rows into the folder `output`, as JSONL under its own name.

    Args:
        heldout, checks, reading: as of `report_files`; `checks.personal` is not used.
        keep: reasons for which no row is left out.
        key: of the pseudonyms that personal data is replaced by; None replaces none.

    Raises:
        UserError: a file cannot be read or written, two of them have one name, or nothing is left.
    """
    checks, reading = checks or DataCheckSettings(), reading or ReadingSettings()
    targets = _targets(files, output)
    with activities.during("reading the data"):
        rows, num_unread, inputs = _read(files, reading)
    left_out: dict[str, int] = {"unread": num_unread}
    kept = rows
    for reasons in (_wrong(heldout, checks, reading), _repeated(checks)):
        kept = _without(kept, reasons, keep, left_out)
    if not kept:
        raise UserError(f"{', '.join(files)}: no row is left of {len(rows)}; left out: {left_out}; --keep keeps some")
    fields = [row.fields for row in kept]
    replaced = None
    if key is not None:
        with activities.during("replacing personal data"):
            fields, replaced = _pseudonymised(fields, Pseudonyms(key))
    outputs = []
    with from_outside(f"{output}: cannot be written", "give --output=FOLDER that can be"):
        make_folder(output)
        for path, target in targets.items():
            own = [value for row, value in zip(kept, fields, strict=True) if row.path == path]
            write_atomically(target, "".join(map(_line, own)))
            outputs += digests_of(str(target), "cleaned", len(own))
        key_check = None if key is None else Pseudonyms(key).of("check", "")
        cleaned = CleanedFiles(inputs, outputs, left_out, replaced, key_check)
        write_atomically(output / CLEAN_JSON, json.dumps(cleaned.as_dict(), indent=2) + "\n")
    return cleaned


def _line(row: dict[str, Any]) -> str:
    """Half a letter, as JSON may hold, is none in UTF-8, and is written as JSON writes it."""
    line = json.dumps(row, ensure_ascii=False, default=str)
    is_unicode = line.encode(errors="ignore").decode() == line
    return (line if is_unicode else json.dumps(row, default=str)) + "\n"


def _targets(files: Sequence[str], output: Path) -> dict[str, Path]:
    """Path -> where its rows will stand."""
    targets: dict[str, Path] = {}
    for path in dict.fromkeys(files):
        name = Path(path).name.replace("*", "all").replace("?", "all")
        for ending in (".gz", Path(name.removesuffix(".gz")).suffix):
            name = name.removesuffix(ending) if ending else name
        target = output / f"{name or 'data'}.jsonl"
        if target in targets.values():
            raise UserError(f"{path}: another file has the name {name} too: clean them one by one, into two folders")
        if target.resolve() == Path(path).expanduser().resolve():
            raise UserError(f"--output={output}: {path} itself would be overwritten: give another folder")
        targets[path] = target
    return targets


def _read(files: Sequence[str], reading: ReadingSettings) -> tuple[list[_Row], int, list[dict[str, Any]]]:
    render = written_texts(plain_dialogue, reading)
    rows: list[_Row] = []
    inputs: list[dict[str, Any]] = []
    num_unread = 0
    for path in dict.fromkeys(files):
        num_rows = 0
        for row in iterate_rows(path):
            num_rows += 1
            try:
                rows.append(_Row(path, row, audited_row(row, reading, render, f"{row.file} row {row.number}")))
            except RowError:
                num_unread += 1
        inputs += digests_of(path, "training", num_rows)
    return rows, num_unread, inputs


Found = dict[Reason, frozenset[int]]
"""Reason -> indices of the rows of which it is true, in the order of `REASONS`."""


def _without(
    rows: Sequence[_Row],
    find: Callable[[Sequence[AuditedRow]], Found],
    keep: Collection[Reason],
    counts: dict[str, int],
) -> list[_Row]:
    """The rows for which nothing is found; `counts` takes the others, each under its first reason."""
    found = {reason: indices for reason, indices in find([row.audited for row in rows]).items() if reason not in keep}
    kept = []
    counts |= dict.fromkeys(found, 0)
    for index, row in enumerate(rows):
        reason = next((name for name, indices in found.items() if index in indices), None)
        if reason is None:
            kept.append(row)
        else:
            counts[reason] += 1
    return kept


def _wrong(
    heldout: Sequence[str], checks: DataCheckSettings, reading: ReadingSettings
) -> Callable[[Sequence[AuditedRow]], Found]:
    def find(rows: Sequence[AuditedRow]) -> Found:
        found: Found = {}
        if heldout:
            with activities.during("looking for held-out prompts"):
                apart = [row for path in heldout for row in read_audited(path, reading).rows]
                leaks = leaks_between(rows, apart, checks.similarity)
            found["leak"] = frozenset((*leaks.same, *leaks.near))
        if checks.benchmarks:
            with activities.during("looking for texts of the benchmarks"):
                benchmarks = [read_benchmark(path, checks.ngram_words) for path in checks.benchmarks]
                shared = shared_ngrams((row.text for row in rows), benchmarks)
            found["benchmark"] = frozenset(one.index for one in shared)
        found["identical"] = frozenset(identical(rows))
        found["contradictory"] = frozenset(index for indices in contradictory(rows) for index in indices)
        return found

    return find


def _repeated(checks: DataCheckSettings) -> Callable[[Sequence[AuditedRow]], Found]:
    def find(rows: Sequence[AuditedRow]) -> Found:
        with activities.during("looking for duplicates"):
            duplicates = duplicates_in(rows, checks.similarity)
        near = frozenset(index for index, _, _ in duplicates.near)
        return {"duplicate": frozenset(duplicates.same), "near-duplicate": near}

    return find


def _pseudonymised(
    fields: Sequence[dict[str, Any]], pseudonyms: Pseudonyms
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The rows with pseudonyms, and how many of each kind."""
    texts = [[text for value in row.values() for text in strings_of(value)] for row in fields]
    found = iter(personal_finder().found_in([text for own in texts for text in own]))
    by_row = [[next(found) for _ in own] for own in texts]
    replaced = [_row_with(row, pseudonyms, own, spans) for row, own, spans in zip(fields, texts, by_row, strict=True)]
    finds = counted([spans for own in by_row for spans in own]).finds
    return replaced, {str(kind): num for kind, num in finds.items()}


def _row_with(
    row: dict[str, Any], pseudonyms: Pseudonyms, texts: Sequence[str], found: Sequence[Sequence[PersonalSpan]]
) -> dict[str, Any]:
    names = full_names_in(found)
    written = [pseudonyms.replaced(text, spans, names) for text, spans in zip(texts, found, strict=True)]
    return {name: with_strings(value, written) for name, value in row.items()}
