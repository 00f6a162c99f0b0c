"""Ray actors around a learner, a sampler and a scorer: shells without logic.

The packages that a role needs are imported inside its methods: the driver, which also reads this file, needs none.
"""

import gc
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import ray
from numpy.typing import NDArray

from cluster.packages import check_packages, installed
from cluster.shared import check_folders, check_shared
from models.adapters import Adapter
from reward.scorer import Score
from rollout.records import Rollout, SampleRequest

if TYPE_CHECKING:
    from configs.roles import Scorer as ScorerSettings
    from configs.schema import LearnerRun
    from models.adapters import Role
    from rollout.proof import PublishProof
    from rollout.sampler import SamplerSpec
    from trainers.checkpoint import Files
    from trainers.engine import Rank
    from trainers.learners import UpdatePlan, UpdateResult


def write_to(log: Path) -> None:
    """Send all that this process prints, from Python or not, to a file of the run, whose folder is there."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def interface_of(address: str) -> str | None:
    """The interface of this host that has the address; None for one that leads to none, as Debian's 127.0.1.1."""
    for name, addresses in psutil.net_if_addrs().items():
        if address in (each.address for each in addresses):
            return name
    return None


class Worker:
    """What all have in common: a log, and that their host has the driver's packages, storage and models.

    Args:
        packages: the driver's, as `cluster.packages.installed` gives them.
        mark: the driver's, in the folder of the log (`cluster.shared.Mark`).
    """

    def __init__(self, log: Path, packages: Mapping[str, str], mark: Path) -> None:
        self._name, self._packages = log.stem, packages
        self._storage_error: OSError | None = None
        try:
            mark.read_bytes()
            write_to(log)
        except OSError as error:
            self._storage_error = error

    def _check_host(self, models: Iterable[str | None] = ()) -> None:
        """Called before anything is opened, not when the actor starts: there Ray would make a death of the error."""
        host = ray.util.get_node_ip_address()
        check_packages(self._name, host, installed(), self._packages)
        check_shared(self._name, host, self._storage_error)
        check_folders(self._name, host, models)


class LearnerWorker(Worker):
    """One DeepSpeed rank."""

    def __init__(self, log: Path, num_threads: int, packages: Mapping[str, str], mark: Path) -> None:
        super().__init__(log, packages, mark)
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
        import torch

        from trainers.engine import join_group

        self._rank = rank
        interface = interface_of(ray.util.get_node_ip_address())
        if interface is not None:
            # Else the libraries look the host's name up, which need not lead to the network that the hosts share.
            for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
                os.environ.setdefault(name, interface)
        join_group(rank, torch.cuda.is_available())

    def apply(self, function: Callable[..., None], arguments: Sequence[Any]) -> None:
        """Run a function where the packages of a learner are loaded anyway."""
        function(*arguments)

    def build(self, run: "LearnerRun") -> None:
        from trainers.build import build_learner, models_of

        self._check_host(models_of(run))
        self._learner: Any = None
        gc.collect()
        self._learner = build_learner(run, self._rank)

    def update(self, batch: Any, plan: "UpdatePlan") -> "UpdateResult":
        result: UpdateResult = self._learner.update(batch, plan)
        return result

    def evaluate(self, batch: Any) -> dict[str, float]:
        shares: dict[str, float] = self._learner.evaluate(batch)
        return shares

    def compute(self, batch: Any, role: "Role | None", function: Callable[[Any, Any], Any]) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = self._learner.compute(batch, role, function)
        return rows

    def adapter(self, version: int) -> Adapter | None:
        """The adapter on rank 0; the other ranks only take part."""
        adapter: Adapter = self._learner.adapter(version)
        return adapter if self._rank.index == 0 else None

    def save(self, folder: Path) -> "Files":
        files: Files = self._learner.save(folder)
        return files

    def load(self, folder: Path) -> None:
        self._learner.load(folder)

    def export(self, folder: Path) -> None:
        self._learner.export(folder)


class RolloutWorker(Worker):
    """One sampler."""

    def __init__(self, log: Path, num_threads: int, packages: Mapping[str, str], mark: Path) -> None:
        super().__init__(log, packages, mark)
        self._sampler: Any = None

    def open(self, spec: "SamplerSpec") -> None:
        """Another model in the place of one that is open."""
        self._check_host((spec.model, spec.tokenizer))
        from rollout.sampler import open_sampler

        self.close()
        self._sampler = open_sampler(spec)

    def sample(self, requests: Sequence[SampleRequest]) -> list[Rollout]:
        from rollout.sampler import sample

        return sample(self._sampler, requests)

    def load(self, adapter: Adapter) -> "PublishProof":
        return self._sampler.load(adapter)

    def serve_base(self) -> None:
        self._sampler.serve_base()

    def close(self) -> None:
        if self._sampler is not None:
            self._sampler.close()
            self._sampler = None


class ScorerWorker(Worker):
    """One reward model, or an ensemble of them."""

    def __init__(self, log: Path, num_threads: int, packages: Mapping[str, str], mark: Path) -> None:
        super().__init__(log, packages, mark)
        import torch

        torch.set_num_threads(num_threads)

    def open(self, settings: "ScorerSettings") -> None:
        self._check_host((settings.model, *settings.ensemble))
        import torch

        from reward.ensemble import open_scorer

        self._scorer = open_scorer(settings, "cuda" if torch.cuda.is_available() else "cpu")

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        return self._scorer.score(pairs)

    def close(self) -> None: ...
