"""The gradient of one step of the real reward trainer against the enumerated one, and bugs that it catches.

Each reward row's own loss and every bug that the row lists, and Bradley-Terry with what a row does not have. About
10 s on one core.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import pytest
from torch import Tensor

from plumbob.configs.settings.offline_objectives import BradleyTerry, RewardObjective
from plumbob.trainers.offline.reward_modelling.reward_batch import FeedbackRecord, response_rewards
from plumbob.verify.local_learner import open_learner
from plumbob.verify.optima.count_optima import all_rankings
from plumbob.verify.optima.response_tree import Array
from plumbob.verify.rows.reward_rows import (
    PAIRS,
    RANKINGS,
    REWARD_ROWS,
    SCORES,
    SIZE,
    BradleyTerryRow,
    RankingsRow,
    RewardFitRow,
    SampledPairsRow,
    TwoRankedRow,
    rewards_of,
)
from plumbob.verify.training.gradients import relative_error
from plumbob.verify.training.train_reward import (
    RewardSettings,
    new_encoder,
    predicted_rewards,
    reward_run,
    scored_records,
    train_feedback,
)
from tests.optimum.planted import Bug, Errors, errors_with
from tests.optimum.reward_gradients import (
    Ranked,
    bradley_terry_gradient,
    one_step,
    plackett_luce_gradient,
    pulled_back_rewards,
    regression_gradient,
    reward_step_gradient,
)
from tests.support.learner_ranks import Ranks


def larger(*arguments: Any) -> Tensor:
    return 1.1 * response_rewards(*arguments)


def best_alone(rewards: Tensor, _: Tensor) -> Tensor:
    return -rewards.log_softmax(dim=1)[:, 0].sum()


def among_all(rewards: Tensor, _: Tensor) -> Tensor:
    return -rewards.log_softmax(dim=1).sum()


def absolute(rewards: Tensor, scores: Tensor) -> Tensor:
    return (rewards - scores).abs().sum()


TRAINER = "plumbob.trainers.offline.reward_modelling.reward_model"
TARGET = "plumbob.trainers.offline.reward_modelling.encoded_feedback.target_of"

BUGS = {
    "rewards 10% too large": Bug(replaced=(f"{TRAINER}.response_rewards", larger)),
    "flip rate left out": Bug(lambda asked: asked.model_copy(update={"flip_rate": 0.0})),
    "margin 0.5": Bug(replaced=(TARGET, lambda _: 0.5)),
    "margin left out": Bug(replaced=(TARGET, lambda _: 0.0)),
    "the best of a ranking alone": Bug(replaced=(f"{TRAINER}.plackett_luce_loss", best_alone)),
    "among all instead of those left": Bug(replaced=(f"{TRAINER}.plackett_luce_loss", among_all)),
    "absolute instead of squared errors": Bug(replaced=(f"{TRAINER}.regression_loss", absolute)),
}
ROWS = {f"{row.name}, {row.setting}": row for row in REWARD_ROWS}
NOISY = "Bradley-Terry, flip rate 0.2 and margins"


@dataclass(frozen=True)
class RewardCase:
    """What a reward model is trained by.

    Attributes:
        gradient: of the mean loss over the records by the responses' rewards, given these, [P, K] -> [P, K].
        bugs: names of those to plant.
    """

    objective: RewardObjective
    records: Sequence[FeedbackRecord]
    gradient: Callable[[Array], Array]
    bugs: Sequence[str]


def case_of(name: str) -> RewardCase:
    """One of `ROWS`, or `NOISY`."""
    scores = rewards_of(SIZE, 0)
    if name == NOISY:
        return noisy_case(scores)
    row = ROWS[name]
    match row:
        case RewardFitRow():
            records, gradient = scored_records(SIZE.world, scores), partial(regression_gradient, scores)
            return RewardCase(SCORES.objective, records, gradient, tuple(row.bug_targets))
        case BradleyTerryRow():
            pairs = drawn(scores, 2)
            gradient = partial(bradley_terry_gradient, pairs, row.flip_rate)
            return RewardCase(row.settings.objective, pairs.records(SIZE.world), gradient, tuple(row.bug_targets))
        case SampledPairsRow():
            pairs = drawn(scores, 2)
            gradient = partial(bradley_terry_gradient, pairs, 0.0)
            return RewardCase(PAIRS.objective, pairs.records(SIZE.world), gradient, tuple(row.bug_targets))
        case RankingsRow() | TwoRankedRow():
            rankings = drawn(scores, 3 if isinstance(row, RankingsRow) else 2)
            gradient = partial(plackett_luce_gradient, rankings)
            return RewardCase(RANKINGS.objective, rankings.records(SIZE.world), gradient, tuple(row.bug_targets))
        case _:
            assert_never(row)


def noisy_case(scores: Array) -> RewardCase:
    pairs = drawn(scores, 2)
    chosen, rejected = pairs.rankings.T
    pairs = replace(pairs, margins=np.abs(scores[:, chosen] - scores[:, rejected]))
    gradient = partial(bradley_terry_gradient, pairs, 0.2)
    bugs = ("rewards 10% too large", "flip rate left out", "margin left out")
    return RewardCase(BradleyTerry(flip_rate=0.2, use_margin=True), pairs.records(SIZE.world), gradient, bugs)


def drawn(rewards: Array, size: int) -> Ranked:
    """About 80 rankings for each prompt, of any responses in any order."""
    rankings = all_rankings(rewards.shape[1], size)
    counts = np.random.default_rng(0).poisson(80 / len(rankings), (len(rewards), len(rankings)))
    return Ranked(rankings, counts, np.zeros(counts.shape))


def errors_of(folder: Path, name: str) -> Errors:
    """Relative errors of the gradient after a few real steps: of the honest trainer, and of each bug."""
    world, case = SIZE.world, case_of(name)
    settings = RewardSettings(case.objective, batch_size=len(case.records) // 3)
    run = reward_run(settings, new_encoder(world, 0, folder), 0)
    learners = open_learner(run)
    train_feedback(run, case.records, learners, folder / "before")
    learners.save(folder)
    expected = pulled_back_rewards(run, world, learners, case.gradient(predicted_rewards(run, world, learners)))

    def error(bug: Bug, step: Path) -> float:
        buggy = reward_run(replace(settings, objective=bug.settings(case.objective)), folder / "encoder", 0)
        still = one_step(buggy, len(case.records))
        others = open_learner(still)
        others.load(folder)
        with bug.planted():
            found = reward_step_gradient(still, case.records, others, step)
        return relative_error(found, expected)

    return errors_with(error, BUGS, case.bugs, folder)


@pytest.mark.parametrize("name", [*ROWS, NOISY])
def test_each_reward_loss_has_the_enumerated_gradient_and_bugs_do_not(
    one_rank: Ranks, tmp_path: Path, name: str
) -> None:
    one_rank.run(errors_of, tmp_path, name)[0].check()
