"""Openings: the messages with which an environment begins an episode on a row become the row's prompt."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from plumbob.configs.settings.programs.environments import EnvironmentSettings
from plumbob.core.errors import UserError
from plumbob.data.reading.field_values import shown
from plumbob.data.reading.readers import Opening
from plumbob.data.records import RowError
from plumbob.data.texts.chat import Message
from plumbob.rollout.environments.environment import EnvironmentFailed
from plumbob.rollout.environments.environment_host import EnvironmentHost

SEEDS = (0, 1)
"""That rows are opened with while they are read. Responses to one prompt have seeds of their own and one opening."""

MAX_WAIT_S = 1.0
"""At a time, for an opening."""

NUM_COMPARED = 8
"""Rows, the first ones, that are opened with each of the seeds."""


@contextmanager
def openings_of(settings: EnvironmentSettings | None) -> Iterator[Opening | None]:
    """Row -> opening while a file is read; None where there is no environment.

    Raises:
        UserError: the environment cannot be imported; or it opens a row otherwise with another seed.
    """
    if settings is None:
        yield None
        return
    host = EnvironmentHost(settings)
    num_opened = 0

    def opening(row: dict[str, Any]) -> list[Message] | None:
        nonlocal num_opened
        seeds = SEEDS if num_opened < NUM_COMPARED else SEEDS[:1]
        num_opened += 1
        try:
            found = [_opening(host, row, seed) for seed in seeds]
        except EnvironmentFailed as failure:
            raise RowError(f"{settings.source} cannot open an episode on it: {failure}") from failure
        if found[0] != found[-1]:
            raise UserError(
                f"the environment {settings.source} opens an episode on one row with other messages for another seed: "
                f"{shown(found[0])} and {shown(found[-1])}. All responses to a prompt are compared, so that what reset "
                f"returns must depend on the row alone; what the policy is not shown may depend on the seed"
            )
        return found[0]

    try:
        yield opening
    finally:
        host.close()


def _opening(host: EnvironmentHost, row: dict[str, Any], seed: int) -> list[Message] | None:
    episode = host.open(row, seed)
    try:
        while not episode.is_open:  # Until its time limit, at which `poll` raises.
            host.wait([episode], MAX_WAIT_S)
            episode.poll()
        return episode.opening
    finally:
        episode.close()
