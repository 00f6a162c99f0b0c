"""All rows of the table, in its order."""

from pathlib import Path
from typing import Protocol

from console.verify.mistakes import Moved
from console.verify.offline_rows import OFFLINE_ROWS, OfflineRow, SampledRow
from console.verify.online_rows import ONLINE_ROWS, OnlineRow
from console.verify.problem import Check
from console.verify.reward_rows import REWARD_ROWS
from console.verify.whole import WholeRow


class Row(Protocol):
    """One objective on one size of world."""

    @property
    def name(self) -> str: ...

    @property
    def setting(self) -> str:
        """What a reader must know beside the name."""

    def measure(self, seed: int, folder: Path) -> tuple[Check, ...]:
        """Train on the instance of `seed` in an empty folder, and measure what came out."""


ALL_ROWS: tuple[Row, ...] = (*ONLINE_ROWS, *OFFLINE_ROWS, *REWARD_ROWS, WholeRow())


def mistakes(row: Row, seed: int, folder: Path) -> Moved:
    """What likely mistakes would move the row's target by, without training; none for a row that has no such target."""
    match row:
        case OnlineRow() | OfflineRow() | SampledRow() | WholeRow():
            return row.mistakes(seed, folder)
        case _:
            return {}
