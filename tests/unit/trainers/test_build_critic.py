"""What a run's settings build: a critic where the estimator has one, and nothing of it elsewhere."""

from pathlib import Path
from typing import Any

import pytest

from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.algorithms import Gae, Rloo
from plumbob.configs.settings.data import PromptDataSettings
from plumbob.configs.settings.models import AlignedPolicySettings
from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.configs.settings.training import OnlineSettings
from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.trainers.build import build_learner
from tests.support.learner_ranks import Ranks, this_rank
from tests.support.tiny_policy import write_policy


def built(run: OnlineRun) -> tuple[dict[str, float], list[Any], set[str]]:
    """Learning rate by parameter group, the roles that have a pass, and which parts are trained."""
    learner = build_learner(run, this_rank())
    trained = {name for name, parameter in learner.model.named_parameters() if parameter.requires_grad}
    parts = {"policy": ".policy.", "value": ".value.", "head": "value_head."}
    trained_parts = {part for part, mark in parts.items() if any(mark in name for name in trained)}
    rates = {group.name: group.learning_rate for group in learner.engine.groups}  # type: ignore[union-attr]
    return rates, [own.role for own in learner.loss_terms], trained_parts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_policy(tmp_path_factory.mktemp("policy")))


def run_of(folder: Path, estimator: Any) -> OnlineRun:
    return OnlineRun(
        data=PromptDataSettings(prompts="unused"),
        policy=AlignedPolicySettings(model=str(folder), tuning=LoraTuning(rank=2, alpha=4)),
        reward=ScorerSettings(model="unused"),
        online=OnlineSettings(learning_rate=1e-3, samples_per_prompt=2, estimator=estimator),
    )


def test_a_critic_is_built_where_the_estimator_has_one(one_rank: Ranks, folder: Path) -> None:
    rates, roles, trained = one_rank.run(built, run_of(folder, Gae(value_learning_rate=2e-3)))[0]
    assert rates == {"policy": 1e-3, "value": 2e-3}
    assert roles == ["policy", "value"] and trained == {"policy", "value", "head"}


def test_no_critic_is_built_where_it_has_none(one_rank: Ranks, folder: Path) -> None:
    rates, roles, trained = one_rank.run(built, run_of(folder, Rloo()))[0]
    assert rates == {"policy": 1e-3}
    assert roles == ["policy"] and trained == {"policy"}
