"""A learner's result is whole or absent, rank 0 alone writes it, and each update has a random stream of its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor

from plumbob.configs.settings.workers import LearnerSettings
from plumbob.models.adapter import Adapter
from plumbob.trainers.learner.engine import Engine, ParameterGroup, Rank
from plumbob.trainers.learner.export import PolicyAdapter
from plumbob.trainers.learner.learner import Learner
from plumbob.trainers.learner.learner_protocol import UpdatePlan, update_seed
from plumbob.verify.local_learner import OneRank
from tests.support.folder_names import names


class TwoFiles:
    """Writes two files; the second only where `is_well`."""

    dtype = torch.float32

    def __init__(self, text: str, is_well: bool = True) -> None:
        self.text, self.is_well = text, is_well

    def export(self, parameters: Mapping[str, Tensor], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.bin").write_text(self.text)
        if not self.is_well:
            raise OSError("no space left on device")
        (folder / "tokenizer.json").write_text(self.text)

    def policy_weights(self, parameters: Mapping[str, Tensor], version: int) -> Adapter:
        raise NotImplementedError


GROUPS: dict[str, list[str]] = {"policy": ["w", "v", "u"], "value": ["head"]}


def learner(artifact: TwoFiles, rank: int = 0) -> tuple[Learner, Any]:
    engine = Mock(spec=Engine)
    engine.sizes.return_value = {"w": 1, "v": 4, "u": 2, "head": 9, "step": 1}
    engine.groups = [ParameterGroup(role, dict.fromkeys(own), 1.0) for role, own in GROUPS.items()]
    engine.whole_parameters.side_effect = lambda names, dtype: iter([("w", torch.zeros(1, dtype=dtype))])
    return Learner(torch.nn.Linear(1, 1), (), engine, artifact, Rank(rank, 2, "h:1"), LearnerSettings()), engine


def test_a_result_that_cannot_be_written_leaves_the_earlier_one(tmp_path: Path) -> None:
    folder = tmp_path / "sft" / "policy"
    broken = OneRank(learner(TwoFiles("new", is_well=False))[0])
    with pytest.raises(OSError, match="no space"):
        broken.export(folder)
    assert names(folder.parent) == []
    OneRank(learner(TwoFiles("old"))[0]).export(folder)
    with pytest.raises(OSError, match="no space"):
        broken.export(folder)
    assert names(folder.parent) == ["policy"]
    assert [(folder / name).read_text() for name in names(folder)] == ["old", "old"]


def test_a_result_replaces_the_earlier_one_with_all_that_was_beside_it(tmp_path: Path) -> None:
    """A calibration is of the weights that it was measured with."""
    folder = tmp_path / "reward_model"
    OneRank(learner(TwoFiles("old"))[0]).export(folder)
    (folder / "calibration.json").write_text("of the old one")
    OneRank(learner(TwoFiles("new"))[0]).export(folder)
    assert names(tmp_path) == ["reward_model"] and names(folder) == ["model.bin", "tokenizer.json"]
    assert (folder / "model.bin").read_text() == "new"


def test_the_other_ranks_gather_and_write_nothing(tmp_path: Path) -> None:
    other, engine = learner(TwoFiles("new"), rank=1)
    other.export(tmp_path / "policy")
    engine.whole_parameters.assert_called_once_with(("w", "v", "u"), torch.float32)
    assert other.policy_weights(1) is None
    assert names(tmp_path) == []


def test_weights_are_published_in_buckets_without_the_critics() -> None:
    one, _ = learner(TwoFiles(""))
    # Of 4 bytes a number: 4, 16 and 8.
    assert one.weight_buckets(16) == (("w",), ("v",), ("u",))
    assert one.weight_buckets(24) == (("w", "v"), ("u",))
    assert one.weight_buckets(1) == one.weight_buckets(16)  # None is cut.
    whole, _ = learner(PolicyAdapter(None, "", "", None))  # type: ignore[arg-type]
    assert whole.weight_buckets(16) == ()


def test_each_seed_and_step_has_a_stream_of_its_own() -> None:
    # Seed 0 has what it always had; with seed + step, seed 0 at step 1 had been seed 1 at step 0.
    assert [update_seed(0, step) for step in (0, 1, 300_000)] == [0, 1, 300_000]
    assert len({update_seed(seed, step) for seed in range(50) for step in range(50)}) == 2500
    assert len({update_seed(seed, step) for seed in (1, 2**31) for step in (0, 2**32 - 1)}) == 4


@pytest.mark.parametrize("seed", [0, 7, update_seed(1, 0), update_seed(2**32 - 1, 9)])
def test_order_and_dropout_are_drawn_from_the_plan_s_seed(seed: int) -> None:
    """By torch's and numpy's own generators: rank 1 of 2 draws dropout from 2 x seed + 1."""
    seen: list[Any] = []

    class Rows:
        num_rows = 4

        def rows(self, index: Any) -> Any:
            seen.append((index.tolist(), torch.initial_seed()))
            raise StopIteration

    one, _ = learner(TwoFiles(""), rank=1)
    rows: Any = Rows()
    with torch.random.fork_rng(), pytest.raises(StopIteration):
        one.update(rows, UpdatePlan(minibatch_size=4, num_epochs=1, learning_rate_scale=1.0, seed=seed))
    assert seen == [(np.random.default_rng(seed).permutation(4).tolist(), (2 * seed + 1) % 2**64)]


class Copied(TwoFiles):
    """Keeps what it was given, and what lay beside it."""

    def export(self, parameters: Mapping[str, Tensor], folder: Path) -> None:
        self.given = {name: tensor.clone() for name, tensor in parameters.items()}
        self.beside = names(folder)


def test_parameters_wait_on_the_disk_for_the_result_and_leave_nothing(tmp_path: Path) -> None:
    artifact = Copied("")
    one, engine = learner(artifact)
    made = {"w": torch.rand(3), "v": torch.rand(2, 2)}
    taken: list[str] = []

    def each(names: Any, dtype: Any) -> Any:
        for name, tensor in made.items():
            taken.append(name)
            yield name, tensor

    engine.sizes.return_value = {"w": 3, "v": 4}
    engine.whole_parameters.side_effect = each
    one.export(tmp_path)
    assert artifact.beside == [".parameters"] and names(tmp_path) == []
    assert artifact.given.keys() == made.keys()
    assert all(torch.equal(artifact.given[name], tensor) for name, tensor in made.items())
    # Other ranks wait for a part of each, also where this one cannot write any.
    taken.clear()
    with pytest.raises(FileNotFoundError):
        one.export(tmp_path / "missing")
    assert taken == ["w", "v"]
