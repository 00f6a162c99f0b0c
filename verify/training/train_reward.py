"""Reward rows: the real loop of the reward model, a tiny BERT that reads the responses' text."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbob.configs.runs import RewardRun
from plumbob.configs.settings.data import FeedbackDataSettings
from plumbob.configs.settings.models import NewBertSettings, RewardEncoderSettings
from plumbob.configs.settings.offline_objectives import RewardObjective
from plumbob.configs.settings.training import RewardTrainingSettings
from plumbob.configs.settings.workers import LearnerSettings
from plumbob.data.records import Ranking, ScoredResponse
from plumbob.models.from_scratch import build_bert
from plumbob.models.masked_lm import open_encoder
from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.offline.reward_modelling.reward_batch import (
    FeedbackRecord,
    RewardBatch,
    collate_responses,
    encode_responses,
    response_rewards,
)
from plumbob.trainers.offline.reward_modelling.reward_model import RewardInput, run_reward
from plumbob.verify.local_learner import OneRank, open_learner
from plumbob.verify.null_listener import NullListener
from plumbob.verify.optima.count_optima import Rankings
from plumbob.verify.optima.response_tree import Array
from plumbob.verify.training.train_offline import evenly_ordered
from plumbob.verify.world.problem import UNREAD
from plumbob.verify.world.tiny_world import TinyWorld

MAX_TOKENS = 16
BALANCE = 0.1
"""How much the responses' heights weigh against how long a ranking is due."""


@dataclass(frozen=True)
class RewardSettings:
    """How a reward model is trained on records: at `learning_rate`, which falls to 0."""

    objective: RewardObjective
    batch_size: int
    num_epochs: int = 1
    learning_rate: float = 1e-3


def trained_rewards(
    world: TinyWorld, settings: RewardSettings, records: Sequence[FeedbackRecord], seed: int, folder: Path
) -> Array:
    """What a BERT trained on the records says of every response, [P, K], less its mean for each prompt."""
    run = reward_run(settings, new_encoder(world, seed, folder), seed)
    learners = open_learner(run)
    train_feedback(run, records, learners, folder / settings.objective.kind)
    rewards = predicted_rewards(run, world, learners)
    centred: Array = rewards - rewards.mean(-1, keepdims=True)
    return centred


def new_encoder(world: TinyWorld, seed: int, folder: Path) -> Path:
    """A random BERT below `folder`, the same for all that are trained there."""
    encoder = folder / "encoder"
    if not encoder.exists():
        texts = [world.prompt_text(p) + " " + world.response_text(k) for p, k in world.pairs]
        build_bert(
            NewBertSettings(vocab_size=64, hidden_size=64, num_heads=2, max_positions=MAX_TOKENS), texts, encoder, seed
        )
    return encoder


def train_feedback(run: RewardRun, records: Sequence[FeedbackRecord], learners: OneRank, folder: Path) -> None:
    with MetricsLog(folder, NullListener()) as log:
        run_reward(run, RewardInput(tuple(records), (), ()), tokenizer_of(run), learners, folder, log)


def predicted_rewards(run: RewardRun, world: TinyWorld, learners: OneRank) -> Array:
    """The rewards of every response as the model has them now, [P, K]."""
    rewards = learners.compute(every_response(run, world), None, response_rewards)
    return rewards.astype(np.float64).reshape(len(world.prompts), -1)


def every_response(run: RewardRun, world: TinyWorld) -> RewardBatch:
    """Every response as a row of its own, in the order of a table [P, K]."""
    responses = [ranking(world, p, (k,)) for p, k in world.pairs]
    tokenizer = tokenizer_of(run)
    return collate_responses(tokenizer, encode_responses(tokenizer, responses, MAX_TOKENS))


def tokenizer_of(run: RewardRun) -> Any:
    return open_encoder(run.reward.existing_encoder).tokenizer


def reward_run(settings: RewardSettings, encoder: Path, seed: int) -> RewardRun:
    return RewardRun(
        seed=seed,
        data=FeedbackDataSettings.model_validate({settings_file(settings.objective): UNREAD}),
        reward=RewardEncoderSettings(model=str(encoder), max_tokens=MAX_TOKENS),
        learner=LearnerSettings(zero_stage=0, micro_batch_size=1024),
        reward_training=RewardTrainingSettings(
            learning_rate=settings.learning_rate,
            schedule="linear",
            num_epochs=settings.num_epochs,
            batch_size=settings.batch_size,
            save_every=10**6,
            objective=settings.objective,
        ),
    )


def settings_file(objective: RewardObjective) -> str:
    return {"bradley-terry": "pairs", "plackett-luce": "rankings", "regression": "scores"}[objective.kind]


def pair_records(world: TinyWorld, counts: NDArray[np.int64]) -> list[Ranking]:
    """`counts` [P, K, K] of pairs, evenly mixed."""
    return [ranking(world, p, (chosen, rejected)) for p, chosen, rejected in evenly_ordered(counts)]


def ranking_records(world: TinyWorld, rankings: Rankings, counts: NDArray[np.int64]) -> list[Ranking]:
    """Each of `rankings` [N, size] as often as `counts` [P, N] says, evenly mixed."""
    return [ranking(world, p, tuple(rankings[index].tolist())) for p, index in evenly_ranked(rankings, counts)]


def evenly_ranked(rankings: Rankings, counts: NDArray[np.int64]) -> list[tuple[int, int]]:
    """The drawn rankings (prompt, index into `rankings`), so that any stretch of them is nearly like the whole.

    As `offline.evenly_ordered`: every response is ranked equally often in any stretch, every ranking has stood nearly
    as often as its share, and of those that are due the one comes whose responses have stood too high or too low.

    Args:
        counts: [P, N]; every set of responses is ranked equally often.
    """
    size, num_responses = rankings.shape[1], int(rankings.max()) + 1
    heights = np.zeros((len(rankings), num_responses))
    np.put_along_axis(heights, rankings, (size - 1) / 2 - np.arange(size)[None, :], axis=1)
    sets: dict[tuple[int, ...], list[int]] = {}
    for index, members in enumerate(np.sort(rankings, axis=1).tolist()):
        sets.setdefault(tuple(members), []).append(index)
    num_copies = int(counts[0].sum()) // len(sets)
    left, owed = counts.copy(), np.zeros((len(counts), num_responses))
    due = np.random.default_rng(0).random(counts.shape)  # Else the likely ones of all sets would come first.
    ordered = []
    for _ in range(num_copies):
        for members, p in itertools.product(cyclic_sets(num_responses, size), range(len(counts))):
            indices = np.array(sets[members])
            shares = counts[p, indices] / num_copies
            due[p, indices] += shares
            owed[p] += shares @ heights[indices]
            misses = np.square(owed[p] - heights[indices]).sum(1)
            wanted = np.where(left[p, indices] > 0, due[p, indices] - BALANCE * misses, -np.inf)
            index = int(indices[wanted.argmax()])
            owed[p] -= heights[index]
            due[p, index] -= 1
            left[p, index] -= 1
            ordered.append((p, index))
    return ordered


def cyclic_sets(num_responses: int, size: int) -> list[tuple[int, ...]]:
    """Every set of `size` responses once, each followed by those that counting on from it gives: 0 1 3, 1 2 4, ...

    Where `size` and `num_responses` have no common divisor, each response stands equally often in any such turn.
    """
    turns = (
        tuple(sorted((member + shift) % num_responses for member in base))
        for base in itertools.combinations(range(num_responses), size)
        for shift in range(num_responses)
    )
    return list(dict.fromkeys(turns))


def ranking(world: TinyWorld, prompt: int, responses: tuple[int, ...]) -> Ranking:
    return Ranking(world.prompt_text(prompt), tuple(world.response_text(response) for response in responses))


def scored_records(world: TinyWorld, rewards: Array) -> list[ScoredResponse]:
    return [ScoredResponse(world.prompt_text(p), world.response_text(k), float(rewards[p, k])) for p, k in world.pairs]
