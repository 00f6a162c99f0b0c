"""Records of the one file that a stage learns from, or of several by mixture weights: read, split and encoded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from plumbob.configs.settings.data import MixtureSettings
from plumbob.core.errors import UserError
from plumbob.data.epoch_order import Mixture
from plumbob.data.reading.row_sorting import ReadRecords
from plumbob.data.splitting import hold_out_each
from plumbob.data.tokenization import EncodedRecords, TooLong

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True)
class EncodedFiles(Generic[T]):
    """Both sides of the split.

    Attributes:
        train: of one file after the other.
        mixture: how the files are weighted; None of one file.
        notes: sentences about what was left out, and about the mixture.
        dropped: of the training records of each file, those that are too long.
    """

    train: tuple[T, ...]
    heldout: tuple[T, ...]
    mixture: Mixture | None
    notes: tuple[str, ...]
    dropped: tuple[tuple[TooLong, ...], ...]


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
    files = data.weights
    split = hold_out_each(read, tuple(files), heldout_path, key, data, seed)
    encoded = [_encoded(path, len(files), part, encode) for path, part in zip(files, split.train, strict=True)]
    heldout = encode(split.heldout, False)
    train = tuple(record for part in encoded for record in part.records)
    notes = split.notes + tuple(note for part in encoded for note in part.notes) + heldout.notes
    dropped = tuple(part.dropped for part in encoded)
    if not data.mixture:
        return EncodedFiles(train, heldout.records, None, notes, dropped)
    mixture = Mixture(tuple(len(part.records) for part in encoded), tuple(files.values()))
    return EncodedFiles(train, heldout.records, mixture, notes + _mixture_notes(files, mixture), dropped)


def by_setting(data: MixtureSettings, records: Sequence[T], mixture: Mixture | None) -> list[tuple[str, Sequence[T]]]:
    """The training records of each file, by what a person calls it: of several files the setting with the path."""
    if mixture is None:
        return [(f"data.{data.one_file}", records)]
    return [(f"data.mixture={path}", part) for path, part in zip(data.weights, mixture.cut(records), strict=True)]


def _encoded(
    path: str, num_files: int, records: Sequence[R], encode: Callable[[Sequence[R], bool], EncodedRecords[T]]
) -> EncodedRecords[T]:
    """What is reported of one file of several begins with its path."""
    if num_files == 1:
        return encode(records, True)
    try:
        found = encode(records, True)
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
