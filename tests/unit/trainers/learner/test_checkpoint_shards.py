"""What each rank of a group writes of its state, and what is read of it."""

from pathlib import Path

import pytest
import torch

from plumbob.trainers.learner.checkpoint_shards import open_shards, shard_of, write_shard
from plumbob.trainers.learner.engine import Rank
from tests.support.folder_names import names

SIZES = {"a": 5, "b": 1, "c": 4, "d": 3, "e": 3}


def shares(sizes: dict[str, int], num_ranks: int) -> list[set[str]]:
    return [set(shard_of(sizes, Rank(index, num_ranks, "h:1"))) for index in range(num_ranks)]


def test_the_largest_go_first_each_to_who_has_the_least() -> None:
    # a: 5 | 0, c: 5 | 4, d: 5 | 7, e: 8 | 7, b: 8 | 8.
    assert shares(SIZES, 2) == [{"a", "e"}, {"c", "d", "b"}]
    # Whatever the order in which a rank knows them.
    assert shares(dict(reversed(SIZES.items())), 2) == shares(SIZES, 2)
    assert shares({"a": 1, "b": 2}, 3) == [{"b"}, {"a"}, set()]


def test_all_shares_together_are_the_state(tmp_path: Path) -> None:
    wanted = {f"{kind}.{name}": torch.rand(size) for name, size in SIZES.items() for kind in ("param", "exp_avg")}
    for index in range(6):  # One more than there are parameters.
        rank = Rank(index, 6, "h:1")
        mine = shard_of(SIZES, rank)
        write_shard({name: t for name, t in wanted.items() if name.split(".")[1] in mine}, tmp_path, rank)
    assert names(tmp_path) == [f"learner-{index}.safetensors" for index in range(6)]
    with open_shards(tmp_path) as found:
        assert set(found) == set(wanted) and len(found) == 10
        assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    (tmp_path / "learner-3.safetensors").unlink()
    with pytest.raises(FileNotFoundError), open_shards(tmp_path):
        pass
