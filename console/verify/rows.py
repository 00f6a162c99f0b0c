"""All rows of the table, in its order."""

from pathlib import Path
from typing import Protocol

from console.verify.offline_rows import OFFLINE_ROWS
from console.verify.online_rows import ONLINE_ROWS
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
