"""From a file, or two, to training and held-out records that share no prompt, nor nearly one."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from plumbob.configs.settings.data import SplittingSettings
from plumbob.core.errors import UserError
from plumbob.data.audit.training_checks import check_near_prompts, check_training
from plumbob.data.reading.field_values import shown
from plumbob.data.reading.row_sorting import ReadRecords

T = TypeVar("T")


@dataclass(frozen=True)
class Split(Generic[T]):
    """Records on both sides, and sentences for a person about what was left out."""

    train: tuple[T, ...]
    heldout: tuple[T, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class SplitFiles(Generic[T]):
    """The same of several files: the training records of each, and what is held out of them together."""

    train: tuple[tuple[T, ...], ...]
    heldout: tuple[T, ...]
    notes: tuple[str, ...]


def hold_out(
    read: Callable[[str], ReadRecords[T]],
    path: str,
    heldout_path: str | None,
    key: Callable[[T], str],
    rules: SplittingSettings,
    seed: int,
) -> Split[T]:
    """Read `path`, and hold out the records of `heldout_path`, or a share of the prompts where there is none.

    Raises:
        UserError: a file cannot be read, or prompts stand on both sides and `rules.overlap` is "refuse"; or what
            `rules.checks` refuse.
    """
    found = hold_out_each(read, (path,), heldout_path, key, rules, seed)
    return Split(found.train[0], found.heldout, found.notes)


def hold_out_each(
    read: Callable[[str], ReadRecords[T]],
    paths: Sequence[str],
    heldout_path: str | None,
    key: Callable[[T], str],
    rules: SplittingSettings,
    seed: int,
) -> SplitFiles[T]:
    """`hold_out` of several files: a prompt that several of them have is on one side in all.

    Raises:
        UserError: as there, or no record of a file is left to train on.
    """
    given = [read(path) for path in paths]
    checked = [check_training(file.records, rules.checks, path) for path, file in zip(paths, given, strict=True)]
    notes = tuple(note for file, (_, found) in zip(given, checked, strict=True) for note in (*file.notes, *found))
    if heldout_path is None:
        numbered = [(number, record) for number, (records, _) in enumerate(checked) for record in records]
        kept, apart = split_by_prompt(numbered, lambda one: key(one[1]), rules.heldout_fraction, seed)
        what = f"{', '.join(paths)}, of which a share is held out"
        kept, near = check_near_prompts(kept, apart, lambda one: key(one[1]), rules.checks, what, is_share=True)
        notes += near
        train = tuple(tuple(record for number, record in kept if number == index) for index in range(len(paths)))
        for path, records in zip(paths, train, strict=True):
            if not records:
                raise UserError(
                    f"{path}: all its prompts are held out, and nothing is left to train on: give it more, lower "
                    f"data.heldout_fraction={rules.heldout_fraction:g}, or give the held-out records as a file"
                )
        return SplitFiles(train, tuple(record for _, record in apart), notes)
    heldout = read(heldout_path)
    sides = [
        check_overlap(records, heldout.records, key, rules, f"{path} and {heldout_path}")
        for path, (records, _) in zip(paths, checked, strict=True)
    ]
    found = tuple(note for _, notes_of_side in sides for note in notes_of_side)
    return SplitFiles(tuple(tuple(records) for records, _ in sides), heldout.records, notes + heldout.notes + found)


def split_by_prompt(
    records: Sequence[T], key: Callable[[T], str], heldout_fraction: float, seed: int
) -> tuple[list[T], list[T]]:
    """(training, held-out): all records of a prompt are on the same side.

    The distinct prompts are ranked by a seeded hash of their text and the first share is held out, at least one prompt
    and never all: the order of the records does not matter. A fraction of 0 holds nothing out.
    """
    ranked = sorted({key(record) for record in records}, key=lambda prompt: _seeded_hash(prompt, seed))
    num_heldout = min(max(1, round(heldout_fraction * len(ranked))), len(ranked) - 1) if heldout_fraction else 0
    apart = set(ranked[:num_heldout])
    train = [record for record in records if key(record) not in apart]
    return train, [record for record in records if key(record) in apart]


def check_overlap(
    train: Sequence[T], heldout: Sequence[T], key: Callable[[T], str], rules: SplittingSettings, what: str
) -> tuple[list[T], tuple[str, ...]]:
    """Training records whose prompt is not held out too, nor nearly, and notes if some were dropped for that.

    `what` names both sides for a person, such as "data.pairs and data.heldout_pairs". UserError when prompts stand in
    both and `rules.overlap` is "refuse", or nearly do and `rules.checks.near_duplicates` is, or when dropping them
    leaves nothing to train on.
    """
    apart = {key(record) for record in heldout}
    kept = [record for record in train if key(record) not in apart]
    num_shared = len(train) - len(kept)
    if num_shared == 0:
        return check_near_prompts(kept, heldout, key, rules.checks, what)
    shared = [key(record) for record in train if key(record) in apart]
    found = (
        f"{what}: {len(set(shared))} prompts stand in both, in {num_shared} of {len(train)} training records, "
        f"such as {shown(shared[0])}"
    )
    if rules.overlap == "refuse":
        raise UserError(
            f"{found}. What is measured must not have been trained on: take them out of one, "
            f"or set data.overlap=drop, which drops them from training"
        )
    if not kept:
        raise UserError(f"{found}. Dropping them leaves nothing to train on: give other training or held-out records")
    others, notes = check_near_prompts(kept, heldout, key, rules.checks, what)
    return others, (f"{found}. They were dropped from training.", *notes)


def _seeded_hash(text: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\n{text}".encode()).hexdigest()
