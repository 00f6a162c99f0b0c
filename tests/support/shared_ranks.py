"""Learner ranks that tests share: starting them takes seconds. A conftest imports the fixtures that its tests use.

Nothing heavy is imported before a test asks for ranks: the maths is collected where torch alone can be found.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.learner_ranks import Ranks


_started: dict[int, "Ranks"] = {}


def _ranks(world_size: int, factory: pytest.TempPathFactory) -> Iterator["Ranks"]:
    """One group for the whole session, whichever conftests have asked for it; the first of them to end closes it."""
    from tests.support.learner_ranks import Ranks

    if world_size not in _started:
        _started[world_size] = Ranks(world_size, factory.mktemp("extensions"))
    yield _started[world_size]
    if world_size in _started:
        _started.pop(world_size).close()


@pytest.fixture(scope="session")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Ranks"]:
    yield from _ranks(1, tmp_path_factory)


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Ranks"]:
    yield from _ranks(2, tmp_path_factory)


@pytest.fixture(scope="session")
def three_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Ranks"]:
    yield from _ranks(3, tmp_path_factory)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support.learner_ranks import write_tiny_llama

    return write_tiny_llama(tmp_path_factory.mktemp("llama"))
