"""All that is known of a data set, from its files (`report_files`): as JSON holds it, with sentences for a person."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plumbob.configs.settings.data import ReadingSettings
from plumbob.configs.settings.stewardship.data_checks import DataCheckSettings
from plumbob.core.activities import activities
from plumbob.data.audit.audited_rows import AuditedFile, AuditedRow, read_audited
from plumbob.data.audit.benchmark_overlap import BenchmarkNgrams, SharedNgram, read_benchmark, shared_ngrams
from plumbob.data.audit.diversity import diversity_of, sampled
from plumbob.data.audit.found_duplicates import duplicates_in, leaks_between
from plumbob.data.audit.label_quality import labels_of
from plumbob.data.audit.report_findings import findings_of
from plumbob.data.personal.personal_counts import counted
from plumbob.data.personal.personal_finder import personal_finder
from plumbob.data.reading.file_formats.formats import list_files

REPORT_JSON, REPORT_HTML = "data_report.json", "data_report.html"

NUM_EXAMPLES = 10
CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class DataReport:
    """What was found; the parts are as JSON holds them.

    Attributes:
        files: path, role (training, held out, benchmark), SHA-256, bytes and rows of each.
        duplicates: rows of the training files that say what earlier ones say.
        leaks: of them those whose prompt is held out; None where no held-out file was given.
        benchmarks: how many training rows share a run of words with each.
        personal: counts by kind; None where it was not looked for.
        diversity, labels: of `diversity_of` and `labels_of`.
        findings: sentences: what is wrong, and what to do.
    """

    files: list[dict[str, Any]]
    num_rows: int
    duplicates: dict[str, Any]
    leaks: dict[str, Any] | None
    benchmarks: list[dict[str, Any]]
    personal: dict[str, Any] | None
    diversity: dict[str, Any]
    labels: dict[str, Any] | None
    findings: list[str]
    seconds: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def report_files(
    files: Sequence[str],
    heldout: Sequence[str] = (),
    checks: DataCheckSettings | None = None,
    reading: ReadingSettings | None = None,
) -> DataReport:
    """Read the files and say what is in them.

    Args:
        heldout: files with what is measured on the same task.
        checks: `similarity`, `benchmarks`, `ngram_words` and `personal` are used; None takes the defaults.
        reading: how rows are read; None takes the defaults.

    Raises:
        UserError: a file cannot be read, or has no row of a known form; or what finds personal data is not installed.
    """
    checks, reading = checks or DataCheckSettings(), reading or ReadingSettings()
    seconds: dict[str, float] = {}
    with _timed("reading", seconds):
        train = [read_audited(path, reading) for path in files]
        apart = [read_audited(path, reading) for path in heldout]
        benchmarks = [read_benchmark(path, checks.ngram_words) for path in checks.benchmarks]
        parts: dict[str, Any] = {"files": _digests(train, apart, benchmarks)}
    rows = [row for file in train for row in file.rows]
    heldout_rows = [row for file in apart for row in file.rows]
    parts |= {"num_rows": len(rows), "leaks": None, "personal": None}
    with _timed("duplicates", seconds):
        parts["duplicates"] = duplicates_in(rows, checks.similarity).as_dict(rows)
        if heldout_rows:
            parts["leaks"] = leaks_between(rows, heldout_rows, checks.similarity).as_dict(rows)
    with _timed("benchmarks", seconds):
        shared = shared_ngrams((row.text for row in rows), benchmarks)
        parts["benchmarks"] = [_overlap(one, shared, rows) for one in benchmarks]
    if checks.personal != "off":
        with _timed("personal data", seconds):
            parts["personal"] = _personal(rows)
    with _timed("diversity", seconds):
        parts["diversity"] = diversity_of(rows)
    with _timed("labels", seconds):
        parts["labels"] = labels_of(rows)
    unread = [
        f"{file.path}: {len(file.unread)} of {file.num_rows} rows cannot be read, such as {file.unread[0]}."
        for file in (*train, *apart)
        if file.unread
    ]
    return DataReport(**parts, findings=[*unread, *findings_of(parts)], seconds=seconds)


@contextmanager
def _timed(part: str, seconds: dict[str, float]) -> Iterator[None]:
    began = time.monotonic()
    with activities.during(f"looking into the data: {part}"):
        yield
    seconds[part] = time.monotonic() - began


def digests_of(path: str, role: str, num_rows: int) -> list[dict[str, Any]]:
    """Of each file that a path names its SHA-256; `num_rows` is of them together."""
    return [
        {"path": str(file), "role": role, "sha256": sha256_of(file), "bytes": file.stat().st_size, "num_rows": num_rows}
        for file in list_files(path)
    ]


def sha256_of(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        while chunk := handle.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _digests(
    train: Sequence[AuditedFile], heldout: Sequence[AuditedFile], benchmarks: Sequence[BenchmarkNgrams]
) -> list[dict[str, Any]]:
    named = (
        *((file.path, "training", file.num_rows) for file in train),
        *((file.path, "held out", file.num_rows) for file in heldout),
        *((one.path, "benchmark", one.num_rows) for one in benchmarks),
    )
    return [entry for path, role, num_rows in named for entry in digests_of(path, role, num_rows)]


def _overlap(benchmark: BenchmarkNgrams, shared: Sequence[SharedNgram], rows: Sequence[AuditedRow]) -> dict[str, Any]:
    own = [one for one in shared if one.path == benchmark.path]
    return {
        "path": benchmark.path,
        "num_rows": benchmark.num_rows,
        "num_short": benchmark.num_short,
        "num_shared": len(own),
        "num_rows_found": len({one.row for one in own}),
        "examples": [
            {"row": rows[one.index].label, "benchmark_row": one.row, "words": one.words} for one in own[:NUM_EXAMPLES]
        ],
    }


def _personal(rows: Sequence[AuditedRow]) -> dict[str, Any]:
    """By kind; rows are named, and what they have is not."""
    some = sampled(rows)
    found = personal_finder().found_in([row.text for row in some])
    counts = counted(found)
    having = [row.label for row, spans in zip(some, found, strict=True) if any(span.kind != "name" for span in spans)]
    return {
        "num_sampled": len(some),
        "num_rows": counts.num_rows,
        "finds": dict(counts.finds),
        "distinct": dict(counts.distinct),
        "examples": having[:NUM_EXAMPLES],
    }
