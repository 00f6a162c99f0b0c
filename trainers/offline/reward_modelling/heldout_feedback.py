"""What a reward model makes of held-out human feedback: its rewards, pairs for people, and metrics."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from plumbob.configs.settings.offline_objectives import Regression, RewardObjective
from plumbob.core.statistics import calibration_error
from plumbob.data.records import Ranking
from plumbob.reward.agreement import (
    FeedbackMetrics,
    annotator_metrics,
    explained_variance,
    pair_margins,
)
from plumbob.trainers.learner.learner_protocol import Learners
from plumbob.trainers.metrics.heldout_pairs import MAX_PAIRS, RewardedPair
from plumbob.trainers.offline.loop import Heldout
from plumbob.trainers.offline.reward_modelling.reward_batch import (
    FeedbackRecord,
    RewardBatch,
    response_rewards,
    target_of,
)


def heldout_rewards(heldout: Heldout[RewardBatch], learners: Learners) -> list[NDArray[np.float32]]:
    """Each record's rewards, in the precision in which the model will score."""
    rewards: list[NDArray[np.float32]] = []
    for index in heldout.portions():
        batch = heldout.batch_of(index)
        grid = learners.compute(batch, None, response_rewards)
        rewards += [row[mask] for row, mask in zip(grid, batch.response_mask, strict=True)]
    return rewards


def rewarded_pairs(records: Sequence[FeedbackRecord], rewards: Sequence[NDArray[np.float32]]) -> list[RewardedPair]:
    """All pairs of each ranking, the better response's first, as many as are kept; none of scored responses."""
    pairs: list[RewardedPair] = []
    for index, (record, given) in enumerate(zip(records, rewards, strict=True)):
        if not isinstance(record, Ranking) or len(pairs) >= MAX_PAIRS:
            break
        scored = zip(record.responses, given.astype(np.float64).tolist(), strict=True)
        pairs += [
            RewardedPair(index, record.prompt, better, worse, high, low, high - low, record.annotator)
            for (better, high), (worse, low) in combinations(scored, 2)
        ]
    return pairs


def feedback_metrics(
    objective: RewardObjective, records: Sequence[FeedbackRecord], rewards: Sequence[NDArray[np.float32]]
) -> FeedbackMetrics:
    """What the means of the objective's statistics do not tell of held-out records, given each one's rewards."""
    if isinstance(objective, Regression):
        scores = np.array([target_of(record) for record in records])
        return {"heldout_explained_variance": explained_variance(np.concatenate(rewards), scores)}
    margins = [pair_margins(row) for row in rewards]
    rankings = [record for record in records if isinstance(record, Ranking)]
    error = calibration_error(np.concatenate(margins))
    return {"heldout_calibration_error": error} | annotator_metrics(rankings, margins)
