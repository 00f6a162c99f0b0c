"""Reward rows of the table: feedback on the responses, and the rewards that explain it best."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plumbob.configs.settings.offline_objectives import BradleyTerry, PlackettLuce, Regression
from plumbob.verify.optima.count_optima import (
    Rankings,
    all_rankings,
    bradley_terry_information,
    chi_squared_point,
    fisher_error,
    plackett_luce_logprobs,
    plackett_luce_loss,
    plackett_luce_scores,
)
from plumbob.verify.optima.offline_optima import exact_wins, flipped
from plumbob.verify.optima.planted_reward_bugs import (
    BRADLEY_TERRY_BUGS,
    FLIP_RATE,
    FLIPPED_BUGS,
    REGRESSION_BUGS,
    TWO_RANKED_BUGS,
    RewardTarget,
    bradley_terry_rewards,
    plackett_luce_bugs,
)
from plumbob.verify.optima.response_tree import Array, seeded_rewards
from plumbob.verify.rows.bug_shift import Moved, shifts_of_bugs
from plumbob.verify.training.train_offline import drawn_counts, exact_counts, in_training_order
from plumbob.verify.training.train_reward import (
    RewardSettings,
    pair_records,
    ranking_records,
    scored_records,
    trained_rewards,
)
from plumbob.verify.world.problem import Measurement, Size

SIZE = Size(depth=2)
"""13 responses to each of 3 prompts."""
ERROR = 0.05
"""Of differences of rewards."""
FITTED = 0.01
SAME = 1e-4
COPIES = 64
"""Labels of each pair."""
DRAWS = 32
"""Rankings of each three responses."""
PAIRS = RewardSettings(BradleyTerry(), batch_size=72)
RANKINGS = RewardSettings(PlackettLuce(), batch_size=78)
SCORES = RewardSettings(Regression(), batch_size=39, num_epochs=300)


@dataclass(frozen=True)
class RewardFitRow:
    """The BERT can say the rewards at all."""

    name: str = "the reward model itself"
    setting: str = "regression on the rewards"
    size: Size = field(default_factory=lambda: SIZE)

    @property
    def bug_targets(self) -> Mapping[str, RewardTarget | None]:
        return REGRESSION_BUGS

    def bug_shifts(self, seed: int, folder: Path) -> Moved:
        return moved_rewards(rewards_of(self.size, seed), lambda scores: scores, self.bug_targets)

    def measure(self, seed: int, folder: Path) -> tuple[Measurement, ...]:
        world, rewards = self.size.world, rewards_of(self.size, seed)
        reached = trained_rewards(world, SCORES, scored_records(world, rewards), seed, folder)
        return (Measurement("error of differences", relative_error(reached, rewards), FITTED),)


@dataclass(frozen=True)
class BradleyTerryRow:
    """Bradley-Terry on every pair in both orders, as often as its probability says, of which a share is flipped."""

    setting: str
    flip_rate: float = 0.0
    name: str = "Bradley-Terry"
    size: Size = field(default_factory=lambda: SIZE)

    @property
    def bug_targets(self) -> Mapping[str, RewardTarget | None]:
        return FLIPPED_BUGS if self.flip_rate else BRADLEY_TERRY_BUGS

    @property
    def settings(self) -> RewardSettings:
        return replace(PAIRS, objective=BradleyTerry(flip_rate=self.flip_rate))

    def bug_shifts(self, seed: int, folder: Path) -> Moved:
        return moved_rewards(wins_of(rewards_of(self.size, seed)), bradley_terry_rewards, self.bug_targets)

    def measure(self, seed: int, folder: Path) -> tuple[Measurement, ...]:
        world, rewards = self.size.world, rewards_of(self.size, seed)
        wins = np.stack([flipped(own, self.flip_rate) for own in wins_of(rewards)])
        records = pair_records(world, exact_counts(wins, COPIES))
        reached = trained_rewards(world, self.settings, in_training_order(records, seed), seed, folder)
        return (Measurement("error of differences", relative_error(reached, rewards), ERROR),)


EXACT_PAIRS = BradleyTerryRow("exact pairs, 13 responses")
FLIPPED_PAIRS = BradleyTerryRow("a tenth of the labels flipped", FLIP_RATE)


@dataclass(frozen=True)
class SampledPairsRow:
    """Bradley-Terry on drawn labels: their maximum likelihood, no further from the truth than chance takes it."""

    name: str = "Bradley-Terry"
    setting: str = f"{COPIES} drawn labels a pair"
    size: Size = field(default_factory=lambda: SIZE)

    @property
    def bug_targets(self) -> Mapping[str, RewardTarget | None]:
        return BRADLEY_TERRY_BUGS

    def bug_shifts(self, seed: int, folder: Path) -> Moved:
        counts = drawn_counts(wins_of(rewards_of(self.size, seed)), seed, COPIES)
        return moved_rewards(counts.astype(np.float64), bradley_terry_rewards, self.bug_targets)

    def measure(self, seed: int, folder: Path) -> tuple[Measurement, ...]:
        world, rewards = self.size.world, rewards_of(self.size, seed)
        counts = drawn_counts(wins_of(rewards), seed, COPIES)
        reached = trained_rewards(world, PAIRS, in_training_order(pair_records(world, counts), seed), seed, folder)
        drawn = counts.astype(np.float64)
        likeliest = np.stack([bradley_terry_rewards(own) for own in drawn])
        errors = [
            fisher_error(found, truth, bradley_terry_information(COPIES * wins, truth))
            for found, truth, wins in zip(reached, rewards, wins_of(rewards), strict=True)
        ]
        return sampled_checks(reached, likeliest, errors)


@dataclass(frozen=True)
class RankingsRow:
    """Plackett-Luce on drawn rankings of three responses."""

    name: str = "Plackett-Luce"
    setting: str = f"{DRAWS} drawn rankings of each 3 of 13 responses"
    size: Size = field(default_factory=lambda: SIZE)

    @property
    def rankings(self) -> Rankings:
        return all_rankings(len(self.size.world.tree.responses), 3)

    @property
    def bug_targets(self) -> Mapping[str, RewardTarget | None]:
        return plackett_luce_bugs(self.rankings)

    def bug_shifts(self, seed: int, folder: Path) -> Moved:
        rewards = rewards_of(self.size, seed)
        counts = drawn_rankings(self.rankings, rewards, seed).astype(np.float64)
        return moved_rewards(
            counts, lambda own: plackett_luce_scores(self.rankings, own, rewards.shape[1]), self.bug_targets
        )

    def measure(self, seed: int, folder: Path) -> tuple[Measurement, ...]:
        world, rewards = self.size.world, rewards_of(self.size, seed)
        rankings = self.rankings
        counts = drawn_rankings(rankings, rewards, seed)
        records = in_training_order(ranking_records(world, rankings, counts), seed)
        reached = trained_rewards(world, RANKINGS, records, seed, folder)
        drawn = counts.astype(np.float64)
        likeliest = np.stack([plackett_luce_scores(rankings, own, rewards.shape[1]) for own in drawn])
        errors = [
            fisher_error(found, truth, plackett_luce_loss(rankings, own, truth)[2])
            for found, truth, own in zip(reached, rewards, drawn, strict=True)
        ]
        return sampled_checks(reached, likeliest, errors)


@dataclass(frozen=True)
class TwoRankedRow:
    """A ranking of two responses is a pair: the same records make the same reward model."""

    name: str = "Plackett-Luce"
    setting: str = "2 responses, against Bradley-Terry"
    size: Size = field(default_factory=lambda: SIZE)

    @property
    def bug_targets(self) -> Mapping[str, RewardTarget | None]:
        return TWO_RANKED_BUGS

    def bug_shifts(self, seed: int, folder: Path) -> Moved:
        return dict.fromkeys(self.bug_targets)

    def measure(self, seed: int, folder: Path) -> tuple[Measurement, ...]:
        world, rewards = self.size.world, rewards_of(self.size, seed)
        records = pair_records(world, exact_counts(wins_of(rewards), 2))
        by_pairs, by_rankings = (
            trained_rewards(world, RewardSettings(objective, batch_size=36), records, seed, folder)
            for objective in (BradleyTerry(), PlackettLuce())
        )
        return (Measurement("largest difference", float(np.abs(by_pairs - by_rankings).max()), SAME),)


REWARD_ROWS = (RewardFitRow(), EXACT_PAIRS, FLIPPED_PAIRS, SampledPairsRow(), RankingsRow(), TwoRankedRow())


def rewards_of(size: Size, seed: int) -> Array:
    """Uniform in [-1, 1], less their mean for each prompt, [P, K]."""
    rewards = seeded_rewards(size.world.tree, size.num_prompts, seed)
    centred: Array = rewards - rewards.mean(-1, keepdims=True)
    return centred


def wins_of(rewards: Array) -> Array:
    return np.stack([exact_wins(own) for own in rewards])


def relative_error(found: Array, expected: Array) -> float:
    """RMS error of the differences of two responses' rewards, of those differences' RMS; the largest over prompts.

    Over all pairs that is the same ratio for the rewards themselves, each less its mean, [P, K].
    """
    return float((np.linalg.norm(found - expected, axis=-1) / np.linalg.norm(expected, axis=-1)).max())


def moved_rewards(feedback: Array, target: RewardTarget, bug_targets: Mapping[str, RewardTarget | None]) -> Moved:
    """Relative error of the rewards that each bug leads to; `feedback` [P, ...]: scores, wins or counts."""

    def solved(wanted: RewardTarget) -> Array:
        return np.stack([wanted(own) for own in feedback])

    right = solved(target)
    return shifts_of_bugs(bug_targets, lambda wrong: relative_error(solved(wrong), right))


def sampled_checks(reached: Array, likeliest: Array, errors: list[float]) -> tuple[Measurement, ...]:
    return (
        Measurement("error of differences", relative_error(reached, likeliest), ERROR),
        Measurement("Fisher-weighted error", max(errors), chi_squared_point(reached.shape[1] - 1)),
    )


def drawn_rankings(rankings: Rankings, rewards: Array, seed: int) -> NDArray[np.int64]:
    """How often each ranking is drawn, [P, N], with `DRAWS` of every three responses."""
    random = np.random.default_rng(seed)
    _, group = np.unique(np.sort(rankings, axis=1), axis=0, return_inverse=True)
    counts = np.zeros((len(rewards), len(rankings)), dtype=np.int64)
    for own, scores in zip(counts, rewards, strict=True):
        probabilities = np.exp(plackett_luce_logprobs(scores, rankings))
        for index in range(group.max() + 1):
            among = np.flatnonzero(group.ravel() == index)
            own[among] = random.multinomial(DRAWS, probabilities[among])
    return counts
