"""The messages that an environment opens its episodes with, for the prompts of all rows (`openings`)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from plumbob.core.errors import UserError
from plumbob.data.texts.chat import Message
from plumbob.rollout.environments.environment_host import EnvironmentHost
from plumbob.rollout.environments.environment_protocol import EnvironmentFailed, episode_seed
from plumbob.rollout.environments.episode import Episode

AT_ONCE = 16
WAIT_S = 1.0
NUM_OPENED_TWICE = 4
"""Of the first rows, to see that a row and a seed give the same opening again."""


def openings(host: EnvironmentHost, rows: Sequence[Mapping[str, Any]], seed: int) -> list[list[Message] | None]:
    """What `reset` gives for each row, with the seed that `episode_seed` makes of it; None: its own prompt stands.

    Raises:
        UserError: it fails for a row, or gives something else when it is asked again.
    """
    found = list(_openings(host, rows, seed))
    for number, again in enumerate(_openings(host, rows[:NUM_OPENED_TWICE], seed)):
        if again != found[number]:
            raise UserError(
                f"row {number + 1}: the environment's reset gives other messages for the same row and seed, so that no "
                f"episode is as its prompt says; draw what is random from random.Random(seed)"
            )
    return found


def _openings(host: EnvironmentHost, rows: Sequence[Mapping[str, Any]], seed: int) -> Iterator[list[Message] | None]:
    for start in range(0, len(rows), AT_ONCE):
        opened: dict[int, Episode] = {}
        try:
            for number, row in enumerate(rows[start : start + AT_ONCE], start + 1):
                opened[number] = host.open(row, episode_seed(seed, row))
            for number, episode in opened.items():
                yield _opening(host, number, episode)
        finally:
            for episode in opened.values():
                episode.close()


def _opening(host: EnvironmentHost, number: int, episode: Episode) -> list[Message] | None:
    try:
        while True:
            episode.poll()
            if episode.is_open:
                return episode.opening
            host.wait([episode], WAIT_S)
    except EnvironmentFailed as error:
        raise UserError(f"row {number}: the environment's reset failed: {error}") from error
