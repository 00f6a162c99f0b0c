"""The Ray actor around one DeepSpeed rank (LearnerWorker)."""

import gc
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from numpy.typing import NDArray

from plumbob.cluster.workers.worker import Worker
from plumbob.core.disk_errors import naming_final
from plumbob.core.garbage import uncollected
from plumbob.core.hidden_package import uncompiled

if TYPE_CHECKING:
    from plumbob.configs.runs import LearnerRun
    from plumbob.models.adapter import ModelRole, PolicyWeights
    from plumbob.trainers.learner.checkpoint import Files
    from plumbob.trainers.learner.engine import Rank
    from plumbob.trainers.learner.learner_protocol import UpdatePlan, UpdateResult


class LearnerWorker(Worker):
    """One DeepSpeed rank."""

    def __init__(self, log: Path, num_threads: int, packages: Mapping[str, str], probe: Path) -> None:
        super().__init__(log, packages, probe)
        import torch

        torch.set_num_threads(num_threads)

    def free_address(self) -> str:
        """`HOST:PORT` of this host that nobody listens on."""
        host = ray.util.get_node_ip_address()
        with socket.socket() as probe:
            probe.bind((host, 0))
            return f"{host}:{probe.getsockname()[1]}"

    def join(self, rank: "Rank") -> None:
        self._check_host()
        with uncollected(), uncompiled():
            import torch

            from plumbob.trainers.learner.engine import join_group

        self._rank = rank
        join_group(rank, torch.cuda.is_available())

    def build(self, run: "LearnerRun") -> None:
        with uncollected(), uncompiled():
            from plumbob.trainers.build import build_learner, models_of
            from plumbob.trainers.learner.ranks.own_rows import OwnRows

        self._check_host(models_of(run))
        self._learner: Any = None
        self._rows: Any = None
        gc.collect()
        self._learner = build_learner(run, self._rank)
        self._rows = OwnRows(self._learner)

    def update(self, batch: Any, plan: "UpdatePlan") -> "UpdateResult":
        result: UpdateResult = self._learner.update(batch, plan)
        return result

    def evaluate(self, batch: Any) -> dict[str, float]:
        means: dict[str, float] = self._learner.evaluate(batch)
        return means

    def compute(self, batch: Any, role: "ModelRole | None", function: Callable[[Any, Any], Any]) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = self._learner.compute(batch, role, function)
        return rows

    def on_rank(
        self,
        function: Callable[[Any, Any, Any], Any],
        common: Any,
        share: Any,
        locations: tuple[tuple[int, int], ...] = (),
        *parts: Any,
    ) -> Any:
        """A function of the loop's, on this rank and the rows that are its own, of which some come with the call."""
        if parts:
            self._rows.rollouts = [parts[part][row] for part, row in locations]
        return function(self._rows, common, share)

    def policy_weights(self, version: int, names: Sequence[str] | None = None) -> "PolicyWeights | None":
        """The policy, or of its own weights those asked for, on rank 0; the other ranks only take part."""
        weights: PolicyWeights | None = self._learner.policy_weights(version, names)
        return weights

    def weight_buckets(self, most_bytes: int) -> tuple[tuple[str, ...], ...]:
        buckets: tuple[tuple[str, ...], ...] = self._learner.weight_buckets(most_bytes)
        return buckets

    def save(self, folder: Path) -> "Files":
        files: Files = self._learner.save(folder)
        return files

    def load(self, folder: Path) -> None:
        self._learner.load(folder)

    def export(self, partial: Path, final: Path) -> None:
        """Into `partial`, which then becomes `final`: the folder that errors of the disk name."""
        with naming_final(partial, final):
            self._learner.export(partial)
