"""Offline rows: the real loop of DPO's family, on pairs in both orders as often as their probability says."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from configs.schema import DpoRun
from console.verify.local import OneRank, open_learner
from console.verify.tree import EOS, Array
from console.verify.unwatched import Unwatched
from console.verify.world import World
from data.tokens import TokenSequence
from trainers.dpo import DpoInput, run_dpo
from trainers.metrics import MetricsLog

COPIES = 16
"""Records of each unordered pair: a probability is rounded to a 16th."""


def exact_counts(wins: Array, copies: int = COPIES) -> NDArray[np.int64]:
    """How often answer i is recorded as chosen over j, [..., K, K]: `wins` [..., K, K] in `copies` records a pair."""
    upper = np.triu(np.rint(copies * wins), k=1)
    lower = np.swapaxes(np.triu(copies * np.ones_like(wins), k=1) - upper, -1, -2)
    return (upper + lower).astype(np.int64)


def train_offline(run: DpoRun, world: World, counts: NDArray[np.int64], folder: Path) -> OneRank:
    """Train on `counts` [P, K, K] of pairs; the learner holds the policy that was reached."""
    learners = open_learner(run)
    answers = [[sequence(world, p, k) for k in range(len(world.tree.answers))] for p in range(len(world.prompts))]
    pairs = tuple(
        (answers[p][chosen], answers[p][rejected])
        for p, chosen, rejected in np.argwhere(counts > 0)
        for _ in range(counts[p, chosen, rejected])
    )
    with MetricsLog(folder, Unwatched()) as log:
        run_dpo(run, DpoInput(pairs, (), EOS, ()), learners, folder, log)
    return learners


def sequence(world: World, prompt: int, answer: int) -> TokenSequence:
    """A prompt and its answer as an offline record: an answer that is cut carries no EOS."""
    ids = np.array(world.prompts[prompt] + world.tree.answers[answer], np.int32)
    return TokenSequence(ids, np.arange(len(ids)) >= len(world.prompts[prompt]))
