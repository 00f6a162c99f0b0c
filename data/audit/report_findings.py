"""What a report on data says in words: what is wrong, what is thin, and what to do about it (`findings_of`)."""

from collections.abc import Iterator, Mapping
from typing import Any

from plumbob.data.personal.personal_span import CALLED, KINDS

SMALL_SHARE = 0.02
"""Of rows that are duplicates: fewer are not worth a word on what to do."""

ONE_SIDED = 0.9
"""Share of the rows from which on one language or one annotator is most of the data."""

THIN_TIMES = 5
"""A group that is mentioned so many times less often than the one of its dimension that is mentioned most is thin."""

LEAST_MENTIONED = 30
"""Rows, of the group of a dimension that is mentioned most, from which on the others are compared with it."""


def findings_of(report: Mapping[str, Any]) -> list[str]:
    """Of the parts of a `DataReport`."""
    return [
        *_duplicates(report["duplicates"], report["num_rows"]),
        *_leaks(report["leaks"]),
        *_benchmarks(report["benchmarks"]),
        *_personal(report["personal"]),
        *_thin(report["diversity"]),
        *_labels(report["labels"]),
    ]


def _duplicates(found: Mapping[str, Any], num_rows: int) -> Iterator[str]:
    num = found["num_same"] + found["num_near"]
    if num:
        todo = ": `plumbob data clean` keeps the first of each" if num >= SMALL_SHARE * num_rows else ""
        yield (
            f"{found['num_same']} of {num_rows} rows are the same as an earlier one, and {found['num_near']} nearly: "
            f"what is repeated weighs more in training{todo}."
        )


def _leaks(found: Mapping[str, Any] | None) -> Iterator[str]:
    if found is not None and found["num_same"] + found["num_near"]:
        yield (
            f"{found['num_same']} training rows have a held-out prompt, and {found['num_near']} nearly one: what is "
            f"measured has been trained on. A run refuses them; `plumbob data clean --heldout=FILE` drops them."
        )


def _benchmarks(found: list[Mapping[str, Any]]) -> Iterator[str]:
    for one in found:
        if one["num_shared"]:
            yield (
                f"{one['num_shared']} training rows share a run of words with {one['num_rows_found']} of the "
                f"{one['num_rows']} rows of {one['path']}: what is measured there has been trained on; "
                f"`plumbob data clean --benchmark=FILE` drops them."
            )
        if one["num_short"]:
            yield f"{one['path']}: {one['num_short']} of {one['num_rows']} rows are too short to be looked for."


def _personal(found: Mapping[str, Any] | None) -> Iterator[str]:
    if found is not None and found["num_rows"]:
        kinds = ", ".join(f"{found['finds'][kind]} {CALLED[kind]}" for kind in KINDS if found["finds"].get(kind))
        yield (
            f"{found['num_rows']} of {found['num_sampled']} rows have personal data: {kinds}. "
            f"`plumbob data clean --personal` puts pseudonyms there."
        )


def _thin(found: Mapping[str, Any]) -> Iterator[str]:
    languages = {name: num for name, num in found["languages"].items() if name != "too short"}
    for what, counts in (("language", languages), ("annotator", found["annotators"])):
        total = sum(counts.values())
        if total and max(counts.values()) >= ONE_SIDED * total:
            name = max(counts, key=lambda key: counts[key])
            yield f"{counts[name] / total:.0%} of the rows are of one {what}, {name}: nothing is known of others."
    for dimension, groups in found["groups"].items():
        most = max(groups.values())
        thin = [f"{name} ({num})" for name, num in groups.items() if num * THIN_TIMES < most]
        if most >= LEAST_MENTIONED and thin:
            leading = max(groups, key=lambda name: groups[name])
            yield (
                f"{dimension}: thin are {', '.join(thin)}, against {leading} ({most} rows): what a model says of "
                f"them is learnt from few rows; add some, or measure them apart."
            )


def _labels(found: Mapping[str, Any] | None) -> Iterator[str]:
    if found is None:
        return
    if found["identical"]["num"]:
        yield (
            f"{found['identical']['num']} of {found['num_compared']} comparisons have identical responses, and prefer "
            f"nothing: `plumbob data clean` drops them."
        )
    if found["contradictory"]["num"]:
        yield (
            f"{found['contradictory']['num']} pairs of responses were preferred both ways: a reward model cannot be "
            f"right on both; have them judged again, or drop them with `plumbob data clean`."
        )
    yield from _bias(
        found["longer_wins"],
        "the longer response is preferred",
        "a reward model can learn length in place of quality: hold pairs of like length out to measure it on, "
        "and set online.shaping.length_penalty or a loss that is normalised by length",
    )
    for name, bias in found["longer_wins_by_annotator"].items():
        yield from _bias(bias, f"annotator {name} prefers the longer response", "compare with the others")
    yield from _bias(
        found["first_wins"],
        "the response that stood first is preferred",
        "show responses in an order that is drawn for each pair, and each pair in both orders",
    )


def _bias(found: Mapping[str, Any] | None, what: str, todo: str) -> Iterator[str]:
    """Where the interval leaves out a half."""
    if found is None:
        return
    low, high = found["ci95"]
    if not low <= 0.5 <= high:
        yield f"{what} in {found['share']:.1%} [{low:.1%}, {high:.1%}] of {found['num']} pairs: {todo}."
