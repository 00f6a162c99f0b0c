"""Offline rows: the real loops of DPO's family and KTO, on as many records as probabilities or draws say."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from plumbob.configs.runs import DpoRun, KtoRun
from plumbob.data.epoch_order import epoch_order
from plumbob.data.tokenization import TokenSequence
from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.offline.dpo import DpoInput, run_dpo
from plumbob.trainers.offline.kto import KtoInput, run_kto
from plumbob.verify.local_learner import OneRank
from plumbob.verify.null_listener import NullListener
from plumbob.verify.optima.response_tree import EOS, Array
from plumbob.verify.world.tiny_world import TinyWorld

T = TypeVar("T")


def exact_counts(wins: Array, copies: int) -> NDArray[np.int64]:
    """How often response i is recorded as chosen over j, [..., K, K]: `wins` [..., K, K] in `copies` records a pair."""
    upper = np.triu(np.rint(copies * wins), k=1)
    lower = np.swapaxes(np.triu(copies * np.ones_like(wins), k=1) - upper, -1, -2)
    return (upper + lower).astype(np.int64)


def train_pairs(run: DpoRun, world: TinyWorld, counts: NDArray[np.int64], learners: OneRank, folder: Path) -> None:
    """Train on `counts` [P, K, K] of pairs; the learner holds the policy that was reached.

    The records lie so that the trainer's own order of them, in its first epoch, is `evenly_ordered`.
    """
    train_records(run, world, in_training_order(evenly_ordered(counts), run.seed), learners, folder)


def train_records(
    run: DpoRun, world: TinyWorld, records: Sequence[tuple[int, int, int]], learners: OneRank, folder: Path
) -> None:
    """The same on pairs (prompt, chosen, rejected), one after the other; the policy is written to `folder`/policy."""
    responses = sequences(world)
    pairs = tuple((responses[p][chosen], responses[p][rejected]) for p, chosen, rejected in records)
    with MetricsLog(folder, NullListener()) as log:
        run_dpo(run, DpoInput(pairs, (), EOS, ()), learners, folder, log)


def in_training_order(order: Sequence[T], seed: int) -> list[T]:
    """Records so placed that an offline trainer's first epoch takes them in `order`."""
    records = list(order)
    for index, record in zip(epoch_order(len(order), 0, seed), order, strict=True):
        records[index] = record
    return records


def evenly_ordered(counts: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """The recorded pairs (prompt, chosen, rejected), so that any stretch of them is nearly like the whole.

    Every response is compared equally often in any stretch, with ever other responses, and has won nearly as often as
    its
    share: minibatches drawn blindly would be so noisy that hundreds of thousands of pairs would not reach the optimum.

    Args:
        counts: [P, K, K]; every pair of responses is recorded equally often, both orders together.
    """
    left = counts.copy()
    owed = np.zeros(counts.shape[:2])
    ordered = []
    for _ in range(int(counts[0, 0, 1] + counts[0, 1, 0])):
        for meeting in rounds(counts.shape[1]):
            for p, (i, j) in itertools.product(range(len(counts)), meeting):
                wins, losses = left[p, i, j], left[p, j, i]
                share = wins / (wins + losses)
                has_won = losses == 0 or (wins > 0 and share + (owed[p, i] - owed[p, j]) / 2 >= 0.5)
                owed[p, i] += share - has_won
                owed[p, j] -= share - has_won
                chosen, rejected = (i, j) if has_won else (j, i)
                left[p, chosen, rejected] -= 1
                ordered.append((p, chosen, rejected))
    return ordered


def rounds(num_responses: int) -> list[list[tuple[int, int]]]:
    """Every pair of responses once, in rounds in which none stands twice: a tournament by the circle method.

    With an odd number one response rests in each round.
    """
    size = num_responses + num_responses % 2
    circle = list(range(size))
    found = []
    for _ in range(size - 1):
        meeting = zip(circle[: size // 2], circle[::-1], strict=False)
        found.append([(i, j) for i, j in meeting if max(i, j) < num_responses])
        circle = [circle[0], circle[-1], *circle[1:-1]]
    return found


class Labels(NamedTuple):
    """Attributes: how often each response is labelled good, and how often bad, [P, K]."""

    desirable: NDArray[np.int64]
    undesirable: NDArray[np.int64]

    @property
    def responses(self) -> NDArray[np.int64]:
        """Index into [P, K] of each record's response, in the records' order."""
        return np.repeat(np.arange(self.desirable.size), (self.desirable + self.undesirable).ravel())


def train_labelled(run: KtoRun, world: TinyWorld, labels: Labels, learners: OneRank, folder: Path) -> None:
    """Train KTO on a record of each label."""
    labelled = tuple(
        (response, is_good)
        for p, own in enumerate(sequences(world))
        for k, response in enumerate(own)
        for is_good in [True] * labels.desirable[p, k] + [False] * labels.undesirable[p, k]
    )
    with MetricsLog(folder, NullListener()) as log:
        run_kto(run, KtoInput(labelled, (), EOS, ()), learners, folder, log)


def drawn_counts(wins: Array, seed: int, copies: int) -> NDArray[np.int64]:
    """As `exact_counts`, each label drawn with its probability."""
    upper = np.triu(np.random.default_rng(seed).binomial(copies, wins), k=1)
    lower = np.swapaxes(np.triu(np.full_like(upper, copies), k=1) - upper, -1, -2)
    return (upper + lower).astype(np.int64)


def sequences(world: TinyWorld) -> list[list[TokenSequence]]:
    """Every response to every prompt as an offline record, [P][K]."""
    return [[sequence(world, p, k) for k in range(len(world.tree.responses))] for p in range(len(world.prompts))]


def sequence(world: TinyWorld, prompt: int, response: int) -> TokenSequence:
    """A prompt and its response as an offline record: a response that is cut carries no EOS."""
    ids = np.array(world.prompts[prompt] + world.tree.responses[response], np.int32)
    return TokenSequence(ids, np.arange(len(ids)) >= len(world.prompts[prompt]))
