"""The Ray actor around one scorer (ScorerWorker)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plumbob.cluster.workers.worker import Worker
from plumbob.reward.scorer import Score

if TYPE_CHECKING:
    from plumbob.configs.settings.rewards import ScorerSettings


class ScorerWorker(Worker):
    """One reward model, or an ensemble of them."""

    def __init__(self, log: Path, num_threads: int, packages: Mapping[str, str], probe: Path) -> None:
        super().__init__(log, packages, probe)
        import torch

        torch.set_num_threads(num_threads)

    def open(self, settings: "ScorerSettings", section: str) -> None:
        """The reward models of the settings that are `section`."""
        self._check_host(ref.name for ref in settings.refs(section))
        import torch

        from plumbob.reward.open_scorer import open_scorer

        self._scorer = open_scorer(settings, section, "cuda" if torch.cuda.is_available() else "cpu")

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        return self._scorer.score(pairs)

    def close(self) -> None: ...
