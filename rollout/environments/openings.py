"""Openings: the messages with which an environment begins an episode on a row become the row's prompt."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from plumbob.configs.settings.programs.environments import EnvironmentSettings
from plumbob.core.errors import UserError
from plumbob.data.reading.readers import Opening
from plumbob.data.records import RowError
from plumbob.data.texts.chat_text import Message
from plumbob.rollout.environments.environment_host import EnvironmentHost
from plumbob.rollout.environments.environment_protocol import EnvironmentFailed, episode_seed
from plumbob.rollout.environments.episode import Episode

WAIT_S = 1.0
"""At a time, for an opening, which has a limit of its own."""

NUM_OPENED_TWICE = 4
"""Of the first rows, to see that a row and a seed give the same opening again."""

ROWS_A_PROCESS = 500
"""That are opened one after another: what an environment keeps of each is gone with its process."""


@contextmanager
def openings_of(settings: EnvironmentSettings | None, seed: int) -> Iterator[Opening | None]:
    """Row -> what `reset` gives for it, while a file is read; None where there is no environment.

    RowError where it fails for a row.

    Args:
        seed: the run's; a row's own is made of it by `episode_seed`.

    Raises:
        UserError: the environment cannot be imported; or it gives something else when it is asked again.
    """
    if settings is None:
        yield None
        return
    host = EnvironmentHost(settings)
    try:
        yield _RowOpenings(host, settings, seed)
    finally:
        host.close()


class _RowOpenings:
    def __init__(self, host: EnvironmentHost, settings: EnvironmentSettings, seed: int) -> None:
        self._host, self._settings, self._seed = host, settings, seed
        self._num_rows = 0
        self._episode: Episode | None = None

    def __call__(self, row: dict[str, Any]) -> list[Message] | None:
        self._num_rows += 1
        try:
            opening = self._opening(row)
            if self._num_rows <= NUM_OPENED_TWICE and self._opening(row) != opening:
                raise UserError(
                    f"the environment {self._settings.source} gives other messages when it is reset again with the "
                    f"same row and seed, so that no episode is as its prompt says: draw what is random from "
                    f"random.Random(seed)"
                )
        except EnvironmentFailed as error:
            raise RowError(f"{self._settings.source} cannot open an episode on it: {error}") from error
        return opening

    def _opening(self, row: dict[str, Any]) -> list[Message] | None:
        seed = episode_seed(self._seed, row)
        if self._episode is None or self._episode.is_closed or self._num_rows % ROWS_A_PROCESS == 0:
            if self._episode is not None:
                self._episode.close()
            self._episode = self._host.open(row, seed)
        else:
            self._episode.reset(row, seed)
        while True:
            self._episode.poll()
            if self._episode.is_open:
                return self._episode.opening
            self._host.wait([self._episode], WAIT_S)
