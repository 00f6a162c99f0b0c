"""All rows of the table, in its order."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from plumbob.verify.rows.bug_shift import Moved
from plumbob.verify.rows.distillation_rows import DISTILLATION_ROWS
from plumbob.verify.rows.iterated_row import IteratedRow
from plumbob.verify.rows.offline_rows import OFFLINE_ROWS
from plumbob.verify.rows.online_rows import ONLINE_ROWS, FitRow
from plumbob.verify.rows.ranked_rows import RANKED_ROWS
from plumbob.verify.rows.reward_rows import REWARD_ROWS
from plumbob.verify.rows.surrogate_rows import SURROGATE_ROWS
from plumbob.verify.rows.whole_system import WholeSystemRow
from plumbob.verify.world.problem import Measurement


class VerifyRow(Protocol):
    """One objective on one size of world."""

    @property
    def name(self) -> str: ...

    @property
    def setting(self) -> str:
        """What a reader must know beside the name."""

    def measure(self, seed: int, folder: Path) -> tuple[Measurement, ...]:
        """Train on the instance of `seed` in an empty folder, and measure what came out."""

    @property
    def bug_targets(self) -> Mapping[str, object]:
        """The targets of trainers that have a planted bug, by its name; None where that is not solved for."""

    def bug_shifts(self, seed: int, folder: Path) -> Moved:
        """What these would move the target by, without training, in what the first check measures."""


ALL_ROWS: tuple[FitRow | VerifyRow, ...] = (
    *ONLINE_ROWS,
    *SURROGATE_ROWS,
    *DISTILLATION_ROWS,
    *RANKED_ROWS,
    *OFFLINE_ROWS,
    IteratedRow(),
    *REWARD_ROWS,
    WholeSystemRow(),
)


def bug_shifts(row: FitRow | VerifyRow, seed: int, folder: Path) -> Moved:
    """As the row's own; none for the model itself, which no trainer's bug concerns."""
    return {} if isinstance(row, FitRow) else row.bug_shifts(seed, folder)
