"""A learner of one rank in this process: the trainers run as they do on a cluster, without Ray in between."""

import os
import socket
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plumbob.configs.runs import LearnerRun
from plumbob.core.atomic_files import replaced
from plumbob.core.host_network import LOOPBACK, listen_on
from plumbob.models.adapter import ModelRole, PolicyWeights
from plumbob.rollout.rollout_heads import RolloutRefs
from plumbob.trainers.build import build_learner
from plumbob.trainers.learner.checkpoint import Files
from plumbob.trainers.learner.engine import Rank, join_group
from plumbob.trainers.learner.learner import Learner
from plumbob.trainers.learner.learner_protocol import MergedUpdate, UpdatePlan, merge_updates
from plumbob.trainers.learner.ranks.own_rows import OwnRows
from plumbob.trainers.learner.ranks.rank_learner import Common, RankLearner, Result, Share


class OneRank:
    """A single rank as `trainers.learner.ranks.rank_learner.RowLearners`."""

    num_ranks = 1

    def __init__(self, learner: Learner) -> None:
        self.learner, self._rank = learner, OwnRows(learner)

    def on_ranks(
        self,
        doing: str,
        function: Callable[[RankLearner, Common, Share], Result],
        common: Common,
        shares: Sequence[Share],
        rollouts: Sequence[RolloutRefs] = (),
    ) -> list[Result]:
        for refs in rollouts:
            self._rank.rollouts = refs.of(refs.parts)
        return [function(self._rank, common, share) for share in shares]

    def update(self, batch: Any, plan: UpdatePlan) -> MergedUpdate:
        return merge_updates([self.learner.update(batch, plan)])

    def evaluate(self, batch: Any) -> dict[str, float]:
        return self.learner.evaluate(batch)

    def compute(
        self, batch: Any, role: ModelRole | None, function: Callable[[Any, Any], Tensor]
    ) -> NDArray[np.float32]:
        return self.learner.compute(batch, role, function)

    def policy_weights(self, version: int) -> PolicyWeights:
        weights = self.learner.policy_weights(version)
        assert weights is not None, "this is rank 0"
        return weights

    def save(self, folder: Path) -> Files:
        return self.learner.save(folder)

    def load(self, folder: Path) -> None:
        self.learner.load(folder)

    def export(self, folder: Path) -> None:
        with replaced(folder) as partial:
            self.learner.export(partial)


def open_learner(run: LearnerRun) -> OneRank:
    """The learner that `run` asks for, in this process, on one thread of the CPU."""
    return OneRank(build_learner(run, _joined()))


@cache
def _joined() -> Rank:
    """This process as the only rank of a group; a process can join one once."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        rank = Rank(0, 1, f"{LOOPBACK}:{probe.getsockname()[1]}")
    listen_on(LOOPBACK)
    join_group(rank, use_cuda=False)
    return rank
