"""The held-out pairs of a stage with the rewards that its result gives them, in one Parquet file."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from plumbob.core.disk_errors import naming_file
from plumbob.core.errors import UserError
from plumbob.rollout.journal import write_parquet

HELDOUT_PAIRS_FILE = "heldout_pairs.parquet"
"""Below the stage's folder."""

MAX_PAIRS = 2048
"""Pairs in the file at most: those of the first held-out records."""

_PAIRS_SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("index", pa.int32()),
        ("prompt", pa.string()),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("chosen_reward", pa.float64()),
        ("rejected_reward", pa.float64()),
        ("margin", pa.float64()),
        ("probability", pa.float64()),
        ("annotator", pa.string()),
    ]
)


@dataclass(frozen=True)
class RewardedPair:
    """Two responses to a prompt, or of KTO one alone, with their rewards.

    Attributes:
        index: which held-out record it is of, 0-based; several pairs are of one ranking.
        chosen, rejected: None where a response was labelled by itself, and the other is not there.
        chosen_reward, rejected_reward: a reward model's raw scores, or what a policy's loss compares.
        margin: above 0 where the rewards agree with the person.
        annotator: who decided; None where the data does not say.
    """

    index: int
    prompt: str
    chosen: str | None
    rejected: str | None
    chosen_reward: float | None
    rejected_reward: float | None
    margin: float
    annotator: str | None = None


def write_pairs(folder: Path, step: int, pairs: Sequence[RewardedPair]) -> None:
    """Write the file of a stage's `folder`, with `probability` = sigmoid(margin): that the person decides so.

    Nothing is written of no pairs, and of many the first `MAX_PAIRS`.

    Args:
        step: whose weights the rewards are of, 1-based.
    """
    if not pairs:
        return
    kept = pairs[:MAX_PAIRS]
    margins = np.array([pair.margin for pair in kept])
    columns = {column.name: [getattr(pair, column.name) for pair in kept] for column in fields(RewardedPair)}
    columns |= {"step": [step] * len(kept), "probability": np.exp(-np.logaddexp(0, -margins)).tolist()}
    with naming_file(folder / HELDOUT_PAIRS_FILE):
        write_parquet(folder / HELDOUT_PAIRS_FILE, pa.Table.from_pydict(columns, schema=_PAIRS_SCHEMA))


def read_pairs(path: Path) -> pa.Table:
    """One file as an Arrow table. UserError where it is none."""
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: cannot be read as Parquet: {error}") from error
    if table.schema.names != _PAIRS_SCHEMA.names:
        different = sorted(set(table.schema.names) ^ set(_PAIRS_SCHEMA.names))
        raise UserError(f"{path}: is not a file of held-out pairs; its columns differ in {different}")
    return table
