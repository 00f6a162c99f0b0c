"""What each rank of a group writes of its state, and what is read of it."""

import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from plumbob.trainers.learner.checkpoint_shards import in_buckets, open_shards, shard_of, write_shard
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
        write_shard(((name, t) for name, t in wanted.items() if name.split(".")[1] in mine), mine, tmp_path, rank)
    assert names(tmp_path) == [f"learner-{index}.safetensors" for index in range(6)]
    with open_shards(tmp_path) as found:
        assert set(found) == set(wanted) and len(found) == 10
        assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    (tmp_path / "learner-3.safetensors").unlink()
    with pytest.raises(FileNotFoundError), open_shards(tmp_path):
        pass


def test_a_file_is_one_of_safetensors_whatever_it_holds(tmp_path: Path) -> None:
    """Written as it comes, in any order of dtypes and of sizes, and read by safetensors itself."""
    tensors = {
        "step": torch.tensor(3.0),
        "exp_avg.w": torch.arange(15, dtype=torch.uint8).reshape(3, 5),
        "exp_avg_scale.w": torch.tensor([0.5, 2.0, 3.0]),
        "exp_avg_run.w": torch.tensor([4, 5, 6], dtype=torch.int32),
        "param.w": torch.rand(5, 3).T,
        "param.none": torch.empty(0, 4),
        "param.b": torch.rand(3).bfloat16(),
    }
    name = write_shard(tensors.items(), ["w", "b", "none", "step"], tmp_path, Rank(0, 1, "h:1"))
    loaded = {key: tensor for key, tensor in load_file(tmp_path / name).items() if not key.startswith("filler.")}
    assert loaded.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert loaded[key].dtype == tensor.dtype and torch.equal(loaded[key], tensor), key
    with open_shards(tmp_path) as found:
        assert set(found) == set(tensors)


def test_what_is_written_is_not_kept(tmp_path: Path) -> None:
    """Of those before the next one, the last alone is alive."""
    made: list[weakref.ref[torch.Tensor]] = []

    def each() -> Iterator[tuple[str, torch.Tensor]]:
        for index in range(5):
            assert sum(one() is not None for one in made) <= 1
            tensor = torch.full((3,), float(index))
            made.append(weakref.ref(tensor))
            yield f"param.{index}", tensor
            del tensor

    write_shard(each(), [str(index) for index in range(5)], tmp_path, Rank(0, 1, "h:1"))
    with open_shards(tmp_path) as found:
        assert [float(found[f"param.{index}"][0]) for index in range(5)] == [0, 1, 2, 3, 4]


def test_buckets_keep_the_order_and_cut_nothing() -> None:
    sizes = {"a": 3, "b": 2, "c": 9, "d": 1, "e": 4}
    assert in_buckets(sizes, 5) == (("a", "b"), ("c",), ("d", "e"))
    assert in_buckets(sizes, 19) == (("a", "b", "c", "d", "e"),)
    assert in_buckets({}, 5) == ()
