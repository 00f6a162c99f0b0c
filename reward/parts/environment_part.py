"""The part `environment`: what an environment gave for an episode."""

from collections.abc import Sequence
from pathlib import Path

from plumbob.configs.settings.reward_parts import EnvironmentPart
from plumbob.reward.scorer import Opening, Score, ScoreRequest


class EpisodeScorer:
    """The sum of the rewards of an episode's turns."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Scores in the order of the requests. ValueError where one is of no episode."""
        return [Score(_reward(request), {}) for request in requests]


def _reward(request: ScoreRequest) -> float:
    if request.episode_reward is None:
        raise ValueError("a response that no environment answered has no reward of one")
    return request.episode_reward


def opening(part: EnvironmentPart, folder: Path | None) -> Opening:
    return Opening(lambda: None, lambda device: EpisodeScorer())
