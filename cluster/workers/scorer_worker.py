"""The Ray actor around one scorer (ScorerWorker)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plumbob.cluster.workers.worker import NO_SOURCES, Worker
from plumbob.core.garbage import uncollected
from plumbob.core.hidden_package import uncompiled
from plumbob.reward.scorer import Score, ScoreRequest, with_texts
from plumbob.rollout.rollout_records import Rollout

if TYPE_CHECKING:
    from plumbob.configs.settings.rewards import Reward


class ScorerWorker(Worker):
    """Scores with one reward, whatever it is."""

    def __init__(self, log: Path, num_threads: int, packages: Mapping[str, str], probe: Path) -> None:
        super().__init__(log, packages, probe)
        import torch

        torch.set_num_threads(num_threads)

    def open(self, reward: "Reward", sources: Mapping[str, str] = NO_SOURCES, folder: Path | None = None) -> None:
        """Load the reward.

        Args:
            sources: function of the user's that the reward calls -> digest of its source on the driver's host.
            folder: where answers that were paid for are kept, for all scorers; None keeps them with this one.
        """
        self._check_host((model.name for model in reward.models), sources)
        with uncollected(), uncompiled():
            import torch

            from plumbob.reward.open_scorer import open_scorer

        self._scorer = open_scorer(reward, "cuda" if torch.cuda.is_available() else "cpu", folder)

    def score(self, requests: Sequence[ScoreRequest], *parts: Sequence[Rollout]) -> list[Score]:
        """Of responses that are in parts, by their numbers, or in the requests."""
        return self._scorer.score(with_texts(requests, parts))

    def close(self) -> None: ...
