"""One learner rank: optimizer steps over its rows of a batch, whatever the objective."""

import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plumbob.configs.settings.workers import LearnerRankSettings
from plumbob.core.atomic_files import flush_all
from plumbob.core.disk_errors import naming_file
from plumbob.core.errors import NotFinite
from plumbob.data.batch import Batch, Prompts
from plumbob.models.adapter import ModelRole, PolicyWeights
from plumbob.models.policy import PolicyModel
from plumbob.models.tuning.idle_reference import IdleReference
from plumbob.models.tuning.starts.start_buffers import start_buffers
from plumbob.trainers.learner.checkpoint import Files, on_disk
from plumbob.trainers.learner.checkpoint_shards import in_buckets, on_disk_meanwhile, open_shards, shard_of, write_shard
from plumbob.trainers.learner.engine import Engine, ForwardOnly, Rank
from plumbob.trainers.learner.export import Artifact, PolicyAdapter
from plumbob.trainers.learner.learner_protocol import B, LossTerm, UpdatePlan, UpdateResult, add_partial_means
from plumbob.trainers.learner.micro_batches import Rows, cut_evenly
from plumbob.trainers.learner.token_values import FIRST, TokenLog

CRITIC = ("value",)
"""Parameter groups left out of export and weight sync: the critic's."""


class Minibatch(NamedTuple):
    """What one rank computes of an optimizer step.

    Attributes:
        batch: rows of which this rank's are some.
        row_ids: what each of them is called in messages and measures, [S].
        parts: this rank's micro-batches, as rows of it; as many on every rank.
        counts: what each pass's sums are divided by, of the whole step.
    """

    batch: Batch
    row_ids: Rows
    parts: list[Rows]
    counts: list[float]


def drawn(num_rows: int, plan: UpdatePlan) -> list[Rows]:
    """Of each epoch the rows of each minibatch, [M, S]."""
    order = np.random.default_rng(plan.seed)
    return [order.permutation(num_rows).reshape(-1, plan.minibatch_size) for _ in range(plan.num_epochs)]


class Learner:
    """A model, its objective's loss terms and its engine on one rank.

    Args:
        idle: its reference, where that is in main memory while nobody asks it.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        loss_terms: Sequence[LossTerm[Any]],
        engine: Engine | ForwardOnly,
        artifact: Artifact,
        rank: Rank,
        settings: LearnerRankSettings,
        idle: IdleReference | None = None,
    ) -> None:
        self._idle = idle
        self.model, self.loss_terms, self.engine, self.artifact = model, tuple(loss_terms), engine, artifact
        self.rank, self.settings = rank, settings

    # -------------------------------------------------------------------------------------------------------- training

    def update(self, batch: Batch, plan: UpdatePlan) -> UpdateResult:
        """Train on every row of `batch` once per epoch, in minibatches of one optimizer step each. Collective.

        Raises:
            NotFinite: a loss or a gradient is not finite. No optimizer step was taken with it.
            ValueError: the batch cannot be cut as planned.
        """
        self.check_cut(batch.num_rows, plan)

        def dealt(batch: Batch, index: Rows) -> Minibatch:
            minibatch = batch.rows(index)
            mine, counts = self.rows_of_rank(len(index)), [max(p.count(minibatch), 1.0) for p in self.loss_terms]
            parts = [mine[micro_batch] for micro_batch in self.micro_batches(minibatch)]
            return Minibatch(minibatch, index, parts, counts)

        return self.train(batch, plan, drawn(batch.num_rows, plan), dealt)

    def check_cut(self, num_rows: int, plan: UpdatePlan) -> None:
        if num_rows % plan.minibatch_size or plan.minibatch_size % self.rank.world_size:
            raise ValueError(
                f"{num_rows} rows, minibatches of {plan.minibatch_size} and {self.rank.world_size} ranks: "
                f"each must divide the one before it"
            )

    def train(
        self, batch: Batch, plan: UpdatePlan, epochs: Sequence[Rows], dealt: Callable[[Batch, Rows], Minibatch]
    ) -> UpdateResult:
        """Optimizer steps over minibatches, the rows [n, S] of each epoch's as `dealt` has them for this rank."""
        torch.manual_seed((plan.seed * self.rank.world_size + self.rank.index) % 2**64)  # As many as it takes.
        self.model.train()
        partial_means: dict[str, list[float]] = {}
        norms: dict[str, list[float]] = {}
        tokens = TokenLog(plan.num_epochs)
        for epoch, minibatches in enumerate(epochs):
            tokens.epoch = epoch
            if epoch == 1:
                batch = batch.in_later_epochs()
            for index in minibatches:
                for name, partial_mean in self._accumulate(dealt(batch, index), tokens).items():
                    partial_means.setdefault(name, []).append(partial_mean)
                for name, norm in self._step(plan).items():
                    norms.setdefault(name, []).append(norm)
        num_steps = sum(map(len, epochs))
        return UpdateResult(
            {
                name: values[0] if name.startswith(FIRST) else sum(values) / num_steps
                for name, values in partial_means.items()
            },
            {name: sum(values) / num_steps for name, values in norms.items()},
            tokens.joined(),
        )

    def evaluate(self, batch: Batch) -> dict[str, float]:
        """This rank's part of each statistic's mean over the batch, which are summed over ranks. No gradients."""
        counts = [max(p.count(batch), 1.0) for p in self.loss_terms]
        partial_means: dict[str, float] = {}
        self.model.eval()
        mine = self.rows_of_rank(batch.num_rows)
        with torch.no_grad():
            for micro_batch in self.micro_batches(batch):
                index = mine[micro_batch]
                own = index[index % self.rank.world_size == self.rank.index]  # Without a repeated last row.
                for p, count in zip(self.loss_terms, counts, strict=True):
                    with self._in_role(p.role):
                        sums = p.loss_sum(self.forward, batch.rows(own if len(own) else index))
                    add_partial_means(partial_means, sums, count if len(own) else math.inf)
        return partial_means

    def _accumulate(self, minibatch: Minibatch, tokens: TokenLog) -> dict[str, float]:
        """Backward every loss term of every micro-batch of this rank's rows."""
        row_ids, counts, partial_means = minibatch.row_ids, minibatch.counts, dict[str, float]()
        for index in minibatch.parts:
            rows = minibatch.batch.rows(index)
            for p, count in zip(self.loss_terms, counts, strict=True):
                is_last = index is minibatch.parts[-1] and p is self.loss_terms[-1]
                with self._in_role(p.role):
                    sums = p.loss_sum(self.forward, rows)
                    if not torch.isfinite(sums.loss):
                        caused_by = tuple(int(row_ids[i]) for i in index)
                        raise NotFinite(f"the {p.role or 'model'}'s loss is {float(sums.loss)}", caused_by)
                    self._training_engine().backward(sums.loss / count, is_last)
                tokens.add(row_ids[index], sums.tokens)
                add_partial_means(partial_means, sums, count)
        return partial_means

    def _step(self, plan: UpdatePlan) -> dict[str, float]:
        norms = self._training_engine().step(plan.learning_rate_scale, plan.num_steps)
        return {f"{name}_grad_norm": norm for name, norm in norms.items()}

    # ---------------------------------------------------------------------------------------------------------- forward

    def forward(self, *inputs: Any) -> Tensor:
        """The forward that is trained: in `autocast` where the settings say so."""
        with torch.autocast(self.engine.device.type, torch.bfloat16, enabled=self.settings.autocast):
            return self.plain_forward(*inputs)

    def plain_forward(self, *inputs: Any) -> Tensor:
        """The forward in the weights' own precision: as whoever loads the result makes it."""
        return self.engine.forward(*(x.to(self.engine.device) if isinstance(x, Tensor) else x for x in inputs))

    def compute(self, batch: B, role: ModelRole | None, function: Callable[[Any, B], Tensor]) -> NDArray[np.float32]:
        """`function` of this rank's rows [n, ...], in one role, without gradients and without dropout. Collective.

        Passes of training use the update's precision (`autocast`). A reward model's calibration (no role) and the
        baselines of an evaluation (nothing is trained) use the weights' own.
        """
        return self.evaluated(batch, self.rows_of_rank(batch.num_rows), self.micro_batches(batch), role, function)

    def evaluated(
        self,
        batch: B,
        mine: Rows,
        micro_batches: Sequence[Rows],
        role: ModelRole | None,
        function: Callable[[Any, B], Tensor],
    ) -> NDArray[np.float32]:
        """Of the rows `mine` of a batch, in micro-batches of positions among them."""
        forward = self.forward if role is not None and self.loss_terms else self.plain_forward
        self.model.eval()
        with torch.no_grad(), self._in_role(role):
            parts = [
                function(forward, batch.rows(mine[micro_batch])).float().cpu().numpy() for micro_batch in micro_batches
            ]
        result = np.empty((len(mine), *parts[0].shape[1:]), dtype=np.float32)
        result[np.concatenate(micro_batches)] = np.concatenate(parts)
        return result

    # ------------------------------------------------------------------------------------------------- state and result

    def policy_weights(self, version: int, names: Collection[str] | None = None) -> PolicyWeights | None:
        """The policy as it is now, for samplers; None on ranks other than 0. Collective.

        Args:
            names: one of `weight_buckets`; None is all of it.
        """
        parameters = self._training_engine().whole_parameters(names or self._of_result(), self.artifact.dtype)
        if self.rank.index:
            deque(parameters, maxlen=0)
            return None
        kept = {name: tensor.clone() for name, tensor in parameters}
        return self.artifact.policy_weights(kept, version)

    def weight_buckets(self, most_bytes: int) -> tuple[tuple[str, ...], ...]:
        """Names of weights that are published together, of at most so many bytes; none of an adapter."""
        if isinstance(self.artifact, PolicyAdapter):
            return ()
        sizes, width = self._training_engine().sizes(), self.artifact.dtype.itemsize
        return in_buckets({name: width * sizes[name] for name in self._of_result()}, most_bytes)

    def _of_result(self) -> tuple[str, ...]:
        """Names of the trained parameters that are not a critic's."""
        groups = self._training_engine().groups
        return tuple(name for group in groups if group.name not in CRITIC for name in group.parameters)

    def save(self, folder: Path) -> Files:
        """Write this rank's share of weights, moments, step, and of where adapters began, by name. Collective.

        Returns what this rank wrote, which is on the disk by then.
        """
        engine, starts = self._training_engine(), start_buffers(self.model)
        names = shard_of(engine.sizes() | {name: start.numel() for name, start in starts.items()}, self.rank)
        tensors = chain(engine.state(names), ((name, one.cpu()) for name, one in starts.items() if name in names))
        try:
            return on_disk(folder, [write_shard(tensors, names, folder, self.rank)])
        finally:
            deque(tensors, maxlen=0)  # A rank that cannot write does not leave the others waiting for its part.

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote, under any ZeRO stage and number of ranks. Collective."""
        with open_shards(folder) as tensors:
            self._training_engine().load_state(tensors)
            for name, start in start_buffers(self.model).items():
                start.copy_(tensors[name])

    def export(self, folder: Path) -> None:
        """Write the result for plain transformers and PEFT into an existing folder; rank 0 writes, all must call."""
        engine = self._training_engine()
        parameters = engine.whole_parameters(self._of_result(), self.artifact.dtype)
        try:
            if self.rank.index == 0:
                with naming_file(folder):
                    with on_disk_meanwhile(parameters, engine.sizes(), folder) as found:
                        self.artifact.export(found, folder)
                    flush_all(folder)
        finally:
            deque(parameters, maxlen=0)  # As in `save`; and all that the other ranks do.

    def _training_engine(self) -> Engine:
        assert isinstance(self.engine, Engine), "this model only computes"
        return self.engine

    @contextmanager
    def _in_role(self, role: ModelRole | None) -> Iterator[None]:
        if role is None:
            yield
            return
        assert isinstance(self.model, PolicyModel), "only a policy model has roles"
        idle = self._idle if role == "reference" else None
        with nullcontext() if idle is None else idle.present(), self.model.role(role):
            yield

    # ------------------------------------------------------------------------------------------------------------- rows

    def rows_of_rank(self, num_rows: int) -> NDArray[np.int64]:
        """Rows rank, rank + world, ...: as many on every rank, the last one repeated where they do not divide.

        Every rank must make the same number of forwards: under ZeRO-3 each gathers the weights from all of them.
        """
        return self._rows_of_ranks(num_rows)[self.rank.index]

    def _rows_of_ranks(self, num_rows: int) -> list[NDArray[np.int64]]:
        ranks = self.rank.world_size
        share = np.arange(-(-num_rows // ranks)) * ranks
        return [np.minimum(share + rank, num_rows - 1) for rank in range(ranks)]

    def micro_batches(self, batch: Batch) -> list[NDArray[np.int64]]:
        """The micro-batches of this rank's rows, as positions among them; as many on every rank."""
        size, device = self.settings.micro_batch_size, self.engine.device.type
        return cut_evenly(self._rows_of_ranks(batch.num_rows), batch.lengths, self.prompts_of(batch), size, device)[
            self.rank.index
        ]

    def prompts_of(self, batch: Batch) -> Prompts | None:
        may_share = isinstance(self.model, PolicyModel) and self.model.shares_prompts
        return batch.prompts if may_share else None
