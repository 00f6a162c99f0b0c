"""The page of what is in files of data, made of `data_report.json`: what was found first, then the counts."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from plumbob.console.report.html_page import html_page, html_table
from plumbob.console.tables import number
from plumbob.core.disk_errors import replace_text
from plumbob.core.outside import from_outside, read_json_object
from plumbob.data.audit.data_report import REPORT_HTML, REPORT_JSON
from plumbob.data.personal.personal_span import CALLED, KINDS

NUM_LISTED = 20


def write_data_page(folder: Path) -> Path:
    """Write it beside the report that it is made of, and give its path. UserError where that is damaged."""
    what, fix = f"{folder / REPORT_JSON}: expected a report on data as JSON", "make it again: plumbob data report"
    report = read_json_object(folder / REPORT_JSON, what, fix)
    with from_outside(what, fix):
        page = data_page(report)
    # Half a letter, as JSON may hold, is none in UTF-8.
    replace_text(folder / REPORT_HTML, page.encode(errors="backslashreplace").decode())
    return folder / REPORT_HTML


def data_page(report: Mapping[str, Any]) -> str:
    """Rows are whatever somebody wrote: all of it is escaped, and the page loads and runs nothing."""
    seconds = sum(report["seconds"].values())
    findings = "".join(f"<li>{escape(text)}</li>" for text in report["findings"])
    body = [
        "<h1>What is in the data</h1>",
        f'<p class="lead">{number(report["num_rows"])} rows, looked into in {seconds:.1f} s</p>',
        f"<h2>Findings</h2><ul>{findings}</ul>" if findings else "<h2>Findings</h2><p>Nothing was found.</p>",
        *_duplicates(report["duplicates"], report["leaks"]),
        *_benchmarks(report["benchmarks"]),
        *_personal(report["personal"]),
        *_labels(report["labels"]),
        *_diversity(report["diversity"]),
        *_files(report["files"]),
    ]
    return html_page("What is in the data", body)


def _section(title: str, heading: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    shown = [[text if isinstance(text, str) else number(text) for text in row] for row in rows]
    return f"<h2>{escape(title)}</h2>{html_table(heading, shown)}"


def _duplicates(found: Mapping[str, Any], leaks: Mapping[str, Any] | None) -> Iterator[str]:
    rows: list[list[object]] = [
        ["the same as an earlier row", found["num_same"], ", ".join(found["same_examples"])],
        [
            "nearly an earlier row",
            found["num_near"],
            ", ".join(f"{one['row']} like {one['like']} ({one['similarity']:.2f})" for one in found["near_examples"]),
        ],
    ]
    if leaks is None:
        rows.append(["a held-out prompt", "not known", "no held-out file was given"])
    else:
        rows.append(["a held-out prompt", leaks["num_same"], ", ".join(leaks["same_examples"])])
        rows.append(["nearly a held-out prompt", leaks["num_near"], ", ".join(leaks["near_examples"])])
    yield _section("Duplicates and leaks", ["rows that are", "number", "such as"], rows)


def _benchmarks(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not found:
        yield "<h2>Benchmarks</h2><p>None was given: whether the data has their texts is not known.</p>"
        return
    rows = [
        [
            Path(one["path"]).name,
            one["num_rows"],
            one["num_short"],
            one["num_rows_found"],
            one["num_shared"],
            "; ".join(f"{each['row']}: {each['words']}" for each in one["examples"][:3]),
        ]
        for one in found
    ]
    heading = ["benchmark", "rows", "too short", "rows found", "training rows", "such as"]
    yield _section("Benchmarks", heading, rows)


def _personal(found: Mapping[str, Any] | None) -> Iterator[str]:
    if found is None:
        yield "<h2>Personal data</h2><p>It was not looked for: --personal does.</p>"
        return
    rows = [[CALLED[kind], found["finds"].get(kind, 0), found["distinct"].get(kind, 0)] for kind in KINDS]
    yield _section(f"Personal data in {number(found['num_sampled'])} rows", ["kind", "found", "different"], rows)
    if found["examples"]:
        yield f"<p>Other than names in {escape(', '.join(found['examples']))}.</p>"


def _labels(found: Mapping[str, Any] | None) -> Iterator[str]:
    if found is None:
        return
    rows: list[list[object]] = [
        ["comparisons", found["num_compared"], ""],
        ["with identical responses", found["identical"]["num"], ", ".join(found["identical"]["examples"])],
        ["preferred both ways", found["contradictory"]["num"], "; ".join(found["contradictory"]["examples"])],
        ["the longer one is preferred", _share(found["longer_wins"]), ""],
    ]
    rows += [[f"by annotator {name}", _share(one), ""] for name, one in found["longer_wins_by_annotator"].items()]
    rows.append(["the one that stood first is preferred", _share(found["first_wins"]), ""])
    yield _section("Labels", ["", "", "such as"], rows)


def _share(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "not known"
    low, high = found["ci95"]
    return f"{found['share']:.1%} [{low:.1%}, {high:.1%}] of {found['num']}"


def _diversity(found: Mapping[str, Any]) -> Iterator[str]:
    lengths = found["lengths"]
    names = list(next(iter(lengths.values()), {}))
    yield _section("Words", ["of a", *names], [[side, *values.values()] for side, values in lengths.items()])
    sampled = f" in {number(found['num_sampled'])} rows"
    yield _counts(f"Languages{sampled}", found["languages"])
    topics = [[one["word"], one["num_rows"]] for one in found["topics"]]
    yield _section(f"What it is about{sampled}", ["word", "rows"], topics)
    yield _counts(f"How prompts begin{sampled}", found["first_words"])
    if found["annotators"]:
        yield _counts("Annotators", found["annotators"])
    groups = [[f"{dimension}: {name}", num] for dimension, own in found["groups"].items() for name, num in own.items()]
    yield _section(f"Groups of people that are named{sampled}", ["group", "rows"], groups)
    yield '<p class="dim">By lists of English words, which do not know who is meant.</p>'


def _counts(title: str, counts: Mapping[str, int]) -> str:
    return _section(title, ["", "rows"], [[name, num] for name, num in list(counts.items())[:NUM_LISTED]])


def _files(files: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = [[Path(one["path"]).name, one["role"], one["num_rows"], one["bytes"], one["sha256"]] for one in files]
    yield _section("Files", ["file", "role", "rows", "bytes", "SHA-256"], rows)
