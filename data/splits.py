"""Training and held-out records that share no prompt."""

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from configs.errors import UserError
from configs.inputs import Splitting
from data.fields import shown

T = TypeVar("T")


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
    train: Sequence[T], heldout: Sequence[T], key: Callable[[T], str], rules: Splitting, what: str
) -> tuple[list[T], str | None]:
    """Training records whose prompt is not held out too, and a note if some were dropped for that.

    `what` names both sides for a person, such as "data.pairs and data.heldout_pairs". UserError when prompts stand in
    both and `rules.overlap` is "refuse", or when dropping them leaves nothing to train on.
    """
    apart = {key(record) for record in heldout}
    kept = [record for record in train if key(record) not in apart]
    num_shared = len(train) - len(kept)
    if num_shared == 0:
        return kept, None
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
    return kept, f"{found}. They were dropped from training."


def _seeded_hash(text: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\n{text}".encode()).hexdigest()
