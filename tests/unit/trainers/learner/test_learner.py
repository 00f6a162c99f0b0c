"""A learner's result is whole or absent, and rank 0 alone writes it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from plumbob.configs.settings.workers import LearnerSettings
from plumbob.models.adapter import Adapter
from plumbob.trainers.learner.engine import Engine, Rank
from plumbob.trainers.learner.learner import Learner
from plumbob.verify.local_learner import OneRank
from tests.support.folder_names import names


class TwoFiles:
    """Writes two files; the second only where `is_well`."""

    def __init__(self, text: str, is_well: bool = True) -> None:
        self.text, self.is_well = text, is_well

    def export(self, parameters: Mapping[str, Tensor], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.bin").write_text(self.text)
        if not self.is_well:
            raise OSError("no space left on device")
        (folder / "tokenizer.json").write_text(self.text)

    def adapter(self, parameters: Mapping[str, Tensor], version: int) -> Adapter:
        raise NotImplementedError


def learner(artifact: TwoFiles, rank: int = 0) -> tuple[Learner, Any]:
    engine = Mock(spec=Engine)
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
    engine.full_parameters.assert_called_once_with()
    assert names(tmp_path) == []
