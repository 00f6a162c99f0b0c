"""A step of the online loop as one rank makes it, of its own rows: forwards, experience, update, rows of the journal.

```
 driver    responses of all rows -- dealt out: b rows a rank, side by side --> scores, by lengths and totals alone
                                          |                                       |
 rank      evaluate_rows: log-probs of its rows ----kept----> learn_rows: rewards, advantages by statistics that the
                                                              ranks exchange, the update; then write_rows: its file
```
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.algorithms import critic_of
from plumbob.core.disk_errors import naming_file
from plumbob.core.errors import NotFinite
from plumbob.data.tokenization import TokenBatch
from plumbob.rollout.journal import write_rows as write_journal_rows
from plumbob.rollout.rollout_records import Rollout
from plumbob.trainers.distillation.teachers import teacher_metrics
from plumbob.trainers.forgetting.replay import with_blocks
from plumbob.trainers.learner.learner_protocol import UpdatePlan, UpdateResult
from plumbob.trainers.learner.ranks.rank_learner import RankLearner
from plumbob.trainers.online.collection.collector import ResponsesElsewhere, StepResponses
from plumbob.trainers.online.experience import LogprobsAndValues, make_experience
from plumbob.trainers.online.objective import compute_logprobs_and_values, train_rows
from plumbob.trainers.online.part_rewards import CombinedScores, turn_reward_scale
from plumbob.trainers.online.ranks.token_metrics import TokenMetrics, measure_tokens
from plumbob.trainers.online.step_metrics import ExperienceStats
from plumbob.trainers.online.token_journal.journal_rows import StepUpdate, journal_rows
from plumbob.trainers.online.trajectories import Trajectories, collate_rollouts


@dataclass(frozen=True)
class StepOrder:
    """What all ranks are told of a step.

    Attributes:
        step: 0-based, which is also the version that the update starts from.
        kl_coefficient: beta of this step.
        plan: of the update.
    """

    run: OnlineRun
    pad_id: int
    step: int
    kl_coefficient: float
    plan: UpdatePlan


@dataclass(frozen=True)
class OwnRollouts:
    """What a rank computes of: b responses that stand side by side in the step, and come with the call.

    Attributes:
        first: the index of the first in the step.
        groups: int64 [b], the step's numbers.
        probed: by which of them the sampler is tried; None where the learner computes all.
        teachers: the number of each one's, int64 [b]; None where there are none.
    """

    first: int
    groups: Tensor
    probed: NDArray[np.int64] | None
    teachers: Tensor | None


@dataclass(frozen=True)
class OwnScores:
    """What a rank learns of its rows, and writes down of them and of others.

    Attributes:
        responses: of these rows, and of some that were left out; the rollouts of all came before.
        learnt: what the shaping of their rewards begins with.
        replayed: text beside each row of the update; None where nothing is replayed.
    """

    responses: ResponsesElsewhere
    learnt: CombinedScores
    replayed: TokenBatch | None


@dataclass(frozen=True)
class RankResult:
    """What one rank tells of its update. Attributes: stats, of_tokens: of all rows, the same on every rank."""

    stats: ExperienceStats
    of_tokens: TokenMetrics
    update: UpdateResult


@dataclass(frozen=True)
class EvaluatedRows:
    """What stays on a rank between its forwards and its update."""

    own: OwnRollouts
    rollouts: Sequence[Rollout]
    trajectories: Trajectories
    computed: LogprobsAndValues


@dataclass(frozen=True)
class LearntRows:
    """What stays on a rank between its update and its file of the journal."""

    responses: StepResponses
    computed: LogprobsAndValues
    step: StepUpdate


def evaluate_rows(rank: RankLearner, order: StepOrder, own: OwnRollouts) -> None:
    """Compute what an update needs of a rank's rows; it stays there for `learn_rows`. Collective."""
    run = order.run
    rollouts, num_rows = rank.rollouts, len(own.groups)
    trajectories = collate_rollouts(rollouts[:num_rows], order.pad_id, own.groups)
    has_critic = critic_of(run.online.estimator) is not None
    computed = compute_logprobs_and_values(
        rank, trajectories, run.rollout.temperature, has_critic, own.probed, own.teachers
    )
    rank.kept = EvaluatedRows(own, rollouts, trajectories, computed)


def learn_rows(rank: RankLearner, order: StepOrder, own: OwnScores) -> RankResult:
    """From the rows of `evaluate_rows` and their scores to the next policy. Collective.

    Raises:
        StaleRollouts: as `make_experience`.
        NotFinite: likewise, or in the update; its rows are indices in the step.
    """
    run, online = order.run, order.run.online
    evaluated: EvaluatedRows = rank.kept
    trajectories, computed = evaluated.trajectories, evaluated.computed
    experience, stats, earned = make_experience(
        trajectories,
        own.learnt.totals,
        computed,
        online,
        order.kl_coefficient,
        order.step,
        run.rollout.max_tokens,
        turn_reward_scale(run),
        rank.batch,
    )
    of_tokens = measure_tokens(trajectories, computed, order.step, rank.batch, _teacher_metrics(rank, run, evaluated))
    learnt = train_rows(online.estimator, experience, computed, trajectories.groups)
    names = rank.batch.gather(torch.from_numpy(evaluated.own.first + learnt.rows))
    try:
        updated = rank.update(with_blocks(learnt.batch, own.replayed), order.plan)
    except NotFinite as error:
        raise NotFinite(str(error), tuple(int(names[row]) for row in error.rows)) from error
    step = StepUpdate(experience, own.learnt, earned, learnt, updated.tokens)
    rank.kept = LearntRows(own.responses.of(evaluated.rollouts), computed, step)
    return RankResult(stats, of_tokens, UpdateResult(updated.partial_means, updated.gradient_norms))


def _teacher_metrics(rank: RankLearner, run: OnlineRun, evaluated: EvaluatedRows) -> Mapping[str, float]:
    computed, mask = evaluated.computed, evaluated.trajectories.action_mask
    if computed.graded is None:
        return {}
    log_ratios = computed.logprobs - computed.graded.logprobs
    return teacher_metrics(run, log_ratios, mask, computed.graded.numbers, rank.batch)


def write_rows(rank: RankLearner, order: StepOrder, path: Path) -> int:
    """Write what was learnt from a rank's rows into its file of the journal; its size in bytes, once it is on disk."""
    learnt: LearntRows = rank.kept
    rank.kept, rank.rollouts = None, ()
    with naming_file(path):
        write_journal_rows(path, order.step + 1, journal_rows(learnt.responses, learnt.computed, learnt.step))
    return path.stat().st_size
