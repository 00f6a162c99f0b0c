"""An update by ranks that tests share, and whether it is the same as another."""

from typing import Any

import numpy as np
import pytest

from plumbob.configs.settings.training import OnlineSettings
from plumbob.trainers.learner.learner_protocol import UpdatePlan, merge_results
from tests.support.learner_ranks import (
    PPO,
    LearnerCase,
    Ranks,
    numpy_state,
    padded,
    ragged_experience,
    tiny_learner,
)

State = dict[str, np.ndarray]
Update = tuple[dict[str, float], State, State]
"""Its metrics, and the learner's state before and after."""

SIX_TWICE = UpdatePlan(minibatch_size=6, num_epochs=2, learning_rate_scale=1.0, seed=0)
"""Six of the rows, so that two ranks and three have as many each, in two optimizer steps."""


def updated(
    case: LearnerCase,
    plan: UpdatePlan,
    num_padding: int = 0,
    online: OnlineSettings = PPO,
    scale: float = 1.0,
    num_rows: int = 8,
) -> tuple[Any, ...]:
    """One update from a fresh learner: its result, the state before and the state after."""
    learner = tiny_learner(case, online)
    before = numpy_state(learner)
    batch = ragged_experience(online, scale).rows(np.arange(num_rows))
    result = learner.update(padded(batch, num_padding), plan)
    return result, before, numpy_state(learner)


def run(ranks: Ranks, *arguments: Any) -> Update:
    """The merged metrics, and the states, which are the same on every rank."""
    found = ranks.run(updated, *arguments)
    for _, _, other in found[1:]:
        assert all(np.array_equal(found[0][2][name], other[name]) for name in other)
    return merge_results([result for result, _, _ in found]), found[0][1], found[0][2]


def run_six(ranks: Ranks, case: LearnerCase) -> Update:
    return run(ranks, case, SIX_TWICE, 0, PPO, 1.0, 6)


def check_same(found: Update, expected: Update) -> None:
    """Same metrics, same gradients, same parameters, as far as float32 sums in another order can be.

    The first moment is linear in the gradient (0.1 g after one step), so it shows each element's gradient; float32 sums
    of some hundred terms differ by about 1e-6 of the tensor's largest element; the bound is 2e-5 of it. Adam divides by
    the gradient's own size: where that is nearly 0 a step may differ more, so parameters get 2% of a step of 1e-3.
    """
    for name, value in expected[0].items():
        assert found[0][name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    for name, tensor in expected[2].items():
        bound = 2e-5 if name.startswith("param.") else 2e-5 * float(np.abs(tensor).max())
        assert np.abs(found[2][name] - tensor).max() <= bound, name
