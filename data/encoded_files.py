"""Records of the one file that a run learns from, or of several by mixture weights: read, split and encoded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from plumbob.configs.settings.data import MixtureSettings
from plumbob.core.errors import UserError
from plumbob.data.epoch_order import Mixture
from plumbob.data.reading.row_sorting import ReadRecords
from plumbob.data.splitting import SplitFiles, hold_out_each
from plumbob.data.tokenization import EncodedRecords, TooLong

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True)
class TrainingFiles(Generic[T]):
    """What is learnt from.

    Attributes:
        train: of one file after the other.
        mixture: how the files are weighted; None of one file.
        notes: sentences about what was left out, and about the mixture.
        dropped: of the training records of each file, those that are too long.
    """

    train: tuple[T, ...]
    mixture: Mixture | None
    notes: tuple[str, ...]
    dropped: tuple[tuple[TooLong, ...], ...]


@dataclass(frozen=True)
class EncodedFiles(TrainingFiles[T]):
    """Both sides of the split."""

    heldout: tuple[T, ...]


def encode_files(
    data: MixtureSettings,
    seed: int,
    read: Callable[[str], ReadRecords[R]],
    key: Callable[[R], str],
    heldout_path: str | None,
    encode: Callable[[Sequence[R], bool], EncodedRecords[T]],
) -> EncodedFiles[T]:
    """Read and encode what the settings name.

    Args:
        key: what records that must be on one side of the split have alike.
        encode: records, and whether there must be some that fit, -> those that do.

    Raises:
        UserError: a file cannot be read, nothing of it is left, or it has no slot in an epoch.
    """
    split = hold_out_each(read, tuple(data.weights), heldout_path, key, data, seed)
    files = encode_training(data, split, lambda records: encode(records, True))
    heldout = encode(split.heldout, False)
    notes = files.notes + heldout.notes
    return EncodedFiles(files.train, files.mixture, notes, files.dropped, heldout.records)


def encode_training(
    data: MixtureSettings, split: SplitFiles[R], encode: Callable[[Sequence[R]], EncodedRecords[T]]
) -> TrainingFiles[T]:
    """The training side of a split, encoded.

    Args:
        encode: records -> those that fit, of which there must be some.

    Raises:
        UserError: nothing of a file is left, or it has no place in an epoch.
    """
    files = data.weights
    encoded = [_encoded(path, len(files), part, encode) for path, part in zip(files, split.train, strict=True)]
    train = tuple(record for part in encoded for record in part.records)
    notes = split.notes + tuple(note for part in encoded for note in part.notes)
    dropped = tuple(part.dropped for part in encoded)
    if not data.mixture:
        return TrainingFiles(train, None, notes, dropped)
    mixture = Mixture(tuple(len(part.records) for part in encoded), tuple(files.values()))
    return TrainingFiles(train, mixture, notes + _mixture_notes(files, mixture), dropped)


def by_file(data: MixtureSettings, records: Sequence[T], mixture: Mixture | None) -> list[tuple[str, Sequence[T]]]:
    """The training records of each file, by its path."""
    parts = [records] if mixture is None else mixture.cut(records)
    return list(zip(data.weights, parts, strict=True))


def by_setting(data: MixtureSettings, records: Sequence[T], mixture: Mixture | None) -> list[tuple[str, Sequence[T]]]:
    """The same by what a person calls each: of several files the setting with the path."""
    if mixture is None:
        return [(f"data.{data.one_file}", records)]
    return [(f"data.mixture={path}", part) for path, part in by_file(data, records, mixture)]


def _encoded(
    path: str, num_files: int, records: Sequence[R], encode: Callable[[Sequence[R]], EncodedRecords[T]]
) -> EncodedRecords[T]:
    """What is reported of one file of several begins with its path."""
    if num_files == 1:
        return encode(records)
    try:
        found = encode(records)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return replace(found, notes=tuple(f"{path}: {note}" for note in found.notes))


def _mixture_notes(files: Mapping[str, float], mixture: Mixture) -> tuple[str, ...]:
    """A sentence for each file. UserError where one has so little weight that none of its records would be used."""
    total, notes = mixture.num_records, []
    for (path, weight), size, slots in zip(files.items(), mixture.sizes, mixture.num_slots, strict=True):
        if not slots:
            raise UserError(
                f"data.mixture: the weight {weight:g} of {path}, of {sum(files.values()):g} in all, gives it none of "
                f"the {total:,} records of an epoch: raise it, or leave the file out"
            )
        notes.append(
            f"data.mixture: {slots:,} of the {total:,} records of an epoch ({slots / total:.1%}) are of {path}: each "
            f"of its {size:,} is used {slots / size:.3g} times."
        )
    return tuple(notes)
