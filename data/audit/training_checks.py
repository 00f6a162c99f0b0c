"""Checks of training records before a run starts: against what it is measured on, and for personal data."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from plumbob.configs.settings.stewardship.data_checks import DataCheckSettings
from plumbob.core.activities import activities
from plumbob.core.errors import UserError
from plumbob.data.audit.benchmark_overlap import read_benchmark, shared_ngrams
from plumbob.data.audit.near_duplicates import near_between
from plumbob.data.personal.personal_counts import count_personal
from plumbob.data.reading.field_values import shown
from plumbob.data.records import texts_of

T = TypeVar("T")


def check_near_prompts(
    train: Sequence[T],
    heldout: Sequence[T],
    key: Callable[[T], str],
    checks: DataCheckSettings,
    what: str,
    is_share: bool = False,
) -> tuple[list[T], tuple[str, ...]]:
    """Training records whose prompt is not nearly one that is held out, and a note where there are others.

    Args:
        key: a record's prompt.
        what: names both sides for a person.
        is_share: whether the held-out records are a share of the same files: what is refused elsewhere is dropped.

    Raises:
        UserError: there are some and `checks.near_duplicates` is "refuse", or they are all.
    """
    if checks.near_duplicates == "off" or not heldout:
        return list(train), ()
    with activities.during("looking for prompts that are nearly held-out ones"):
        near = near_between((key(record) for record in train), (key(record) for record in heldout), checks.similarity)
    if not near:
        return list(train), ()
    kept = [record for record in train if key(record) not in near]
    text, other = next(iter(near.items()))
    found = (
        f"{what}: {len(near)} prompts of {len(train) - len(kept)} of {len(train)} training records are nearly held-out "
        f"ones, such as {shown(text)} and {shown(other)}"
    )
    if checks.near_duplicates == "report":
        return list(train), (f"{found}. They were kept.",)
    if checks.near_duplicates == "refuse" and not is_share:
        raise UserError(
            f"{found}. What is measured must not have been trained on: take them out of one, or set "
            f"data.checks.near_duplicates=drop, which drops them from training; =report keeps them"
        )
    if not kept:
        raise UserError(
            f"{found}. Dropping them leaves nothing to train on: raise data.checks.similarity={checks.similarity:g}, "
            f"or set data.checks.near_duplicates=report, which keeps them"
        )
    return kept, (f"{found}. They were dropped from training.",)


def check_training(records: Sequence[T], checks: DataCheckSettings, path: str) -> tuple[list[T], tuple[str, ...]]:
    """The records of a file that share no text with a benchmark, and notes about those that do, and personal data.

    Raises:
        UserError: there are some that `checks` refuse, or nothing is left.
    """
    kept, notes = _without_benchmarks(records, checks, path)
    return kept, notes + _personal_notes(kept, checks, path)


def _without_benchmarks(records: Sequence[T], checks: DataCheckSettings, path: str) -> tuple[list[T], tuple[str, ...]]:
    if not checks.benchmarks:
        return list(records), ()
    with activities.during("looking for texts of the benchmarks"):
        benchmarks = [read_benchmark(name, checks.ngram_words) for name in checks.benchmarks]
        shared = shared_ngrams(("\n".join(texts_of(record)) for record in records), benchmarks)
    notes = tuple(
        f"{one.path}: {one.num_short} of {one.num_rows} rows are too short to be looked for in {path}."
        for one in benchmarks
        if one.num_short
    )
    if not shared:
        return list(records), notes
    indices = {one.index for one in shared}
    first = shared[0]
    found = (
        f"{path}: {len(indices)} of {len(records)} training records share a run of words with a benchmark, such as "
        f"{shown(first.words)}, row {first.row} of {first.path}"
    )
    if checks.contamination == "report":
        return list(records), (*notes, f"{found}. They were kept.")
    if checks.contamination == "refuse":
        raise UserError(
            f"{found}. What is measured must not have been trained on: take them out, or set "
            f"data.checks.contamination=drop, which drops them from training; =report keeps them"
        )
    if len(indices) == len(records):
        raise UserError(f"{found}. Dropping them leaves nothing to train on: give other training records")
    kept = [record for index, record in enumerate(records) if index not in indices]
    return kept, (*notes, f"{found}. They were dropped from training.")


def _personal_notes(records: Sequence[T], checks: DataCheckSettings, path: str) -> tuple[str, ...]:
    if checks.personal == "off":
        return ()
    with activities.during("looking for personal data"):
        counts = count_personal(["\n".join(texts_of(record)) for record in records])
    if not counts.num_rows:
        return ()
    found = f"{path}: personal data in {counts.num_rows} of {len(records)} training records: {counts.words()}"
    if checks.personal == "refuse":
        raise UserError(
            f"{found}. Replace it: `plumbob data clean {path} --personal`; or set data.checks.personal=report, which "
            f"keeps it"
        )
    return (f"{found}. It was kept.",)
