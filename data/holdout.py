"""From a file, or two, to training and held-out records that share no prompt."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from configs.inputs import Splitting
from data.readers import Read
from data.splits import check_overlap, split_by_prompt

T = TypeVar("T")


@dataclass(frozen=True)
class Split(Generic[T]):
    """Records on both sides, and sentences for a person about what was left out."""

    train: tuple[T, ...]
    heldout: tuple[T, ...]
    notes: tuple[str, ...]


def hold_out(
    read: Callable[[str], Read[T]],
    path: str,
    heldout_path: str | None,
    key: Callable[[T], str],
    rules: Splitting,
    seed: int,
) -> Split[T]:
    """Read `path`, and hold out the records of `heldout_path`, or a share of the prompts where there is none.

    Raises:
        UserError: a file cannot be read, or prompts stand on both sides and `rules.overlap` is "refuse".
    """
    given = read(path)
    if heldout_path is None:
        train, heldout = split_by_prompt(given.records, key, rules.heldout_fraction, seed)
        return Split(tuple(train), tuple(heldout), given.notes)
    apart = read(heldout_path)
    train, note = check_overlap(given.records, apart.records, key, rules, f"{path} and {heldout_path}")
    return Split(tuple(train), apart.records, given.notes + apart.notes + ((note,) if note else ()))
