"""Where `learner.autocast` holds: in an update and what it is compared with, and nowhere else."""

from typing import Any

import numpy as np
import pytest
import torch

from plumbob.configs.settings.workers import LearnerSettings
from plumbob.models.adapter import ModelRole
from plumbob.models.policy import PolicyModel
from plumbob.trainers.learner.engine import ForwardOnly, Rank
from plumbob.trainers.learner.export import NoArtifact
from plumbob.trainers.learner.learner import Learner
from plumbob.trainers.learner.learner_protocol import LossSum, LossTerm


class Numbers:
    """Three rows of one number."""

    num_rows = 3
    lengths = np.ones(3, np.int64)

    def rows(self, index: Any) -> torch.Tensor:
        return torch.tensor([[1.001], [2.0], [3.0]])[index]


class Roles(PolicyModel):
    """The identity as a matrix product, in whatever role."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Linear(1, 1, bias=False), {"policy": None, "reference": None})
        torch.nn.init.ones_(self.causal_lm.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        found: torch.Tensor = self.causal_lm(x)
        return found


def identity(forward: Any, rows: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = forward(rows)
    return found


LOSS_TERMS = (
    LossTerm("policy", lambda forward, rows: LossSum(forward(rows).sum(), {"sum": forward(rows).sum()}), len),
)


# bfloat16 has 8 bits: beside 1 it has 1.0078 and nothing between.
@pytest.mark.parametrize(
    "loss_terms, role, expected",
    [
        pytest.param(LOSS_TERMS, "policy", 1.0, id="what an update is compared with"),
        pytest.param(LOSS_TERMS, None, 1.001, id="a reward model's calibration"),
        pytest.param((), "reference", 1.001, id="the baseline of an evaluation"),
    ],
)
def test_where_autocast_holds(loss_terms: Any, role: ModelRole | None, expected: float) -> None:
    model = Roles()
    settings = LearnerSettings(autocast=True)
    learner = Learner(model, loss_terms, ForwardOnly(model), NoArtifact(), Rank(0, 1, ""), settings)
    batch: Any = Numbers()
    device = learner.engine.device
    assert device.type in ("cpu", "cuda")
    found = learner.compute(batch, role, identity)
    assert found[:, 0].tolist() == pytest.approx([expected, 2, 3], abs=1e-6)
