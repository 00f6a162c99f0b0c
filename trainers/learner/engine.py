"""One DeepSpeed ZeRO rank: backward, gradient norms by group, step, and state by parameter name.

The only file that imports deepspeed.
"""

import math
import os
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from plumbob.configs.settings.training import OptimizerSettings
from plumbob.configs.settings.workers import LearnerSettings
from plumbob.core.errors import NotFinite
from plumbob.core.garbage import uncollected
from plumbob.core.hidden_package import hidden
from plumbob.trainers.algorithms.rank_allocation import RankAllocation
from plumbob.trainers.learner.moments import open_adamw
from plumbob.trainers.learner.zero_parts import (
    forget_gradients,
    gathered,
    part_of,
    scale_gradient,
    set_parameter,
    shape_of,
    square_sum,
    updated_tensors,
    whole_gradient,
)


@dataclass(frozen=True)
class Rank:
    """Where this process stands in the group of learners.

    Attributes:
        index: 0 <= index < world_size.
        master: `HOST:PORT` of rank 0.
    """

    index: int
    world_size: int
    master: str


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate, are clipped together and whose gradient norm is reported under `name`."""

    name: str
    parameters: Mapping[str, nn.Parameter]
    learning_rate: float


def join_group(rank: Rank, use_cuda: bool) -> None:
    """Make this process one rank of a torch.distributed group; one that is in a group already stays in that."""
    if distributed.is_initialized():
        return
    os.environ |= {"RANK": str(rank.index), "WORLD_SIZE": str(rank.world_size), "LOCAL_RANK": "0"}
    backend = "nccl" if use_cuda else "gloo"
    deepspeed = import_deepspeed(use_cuda)
    store, timeout = _rendezvous(rank), distributed.default_pg_timeout
    distributed.init_process_group(backend, None, timeout, rank.world_size, rank.index, store)
    deepspeed.init_distributed(dist_backend=backend, verbose=False)


def _rendezvous(rank: Rank) -> distributed.TCPStore:
    """Where the ranks find one another. Rank 0 listens on its own address: torch by itself would on all of its host."""
    host, port = rank.master.rsplit(":", 1)
    listening = None if rank.index else socket.create_server((host, int(port))).detach()
    ours = (host, int(port), rank.world_size, rank.index == 0, distributed.default_pg_timeout)
    return distributed.TCPStore(*ours, master_listen_fd=listening)


def import_deepspeed(use_cuda: bool) -> Any:
    """DeepSpeed; on a CPU without its compiled operators: none is needed, and building the first takes a minute."""
    if not use_cuda:
        os.environ["DS_ACCELERATOR"] = "cpu"
    # DeepSpeed's tuner, which nobody asks, would import it with pandas and its servers.
    with uncollected(), hidden("mlflow"):
        import deepspeed
        import deepspeed.ops

    if not use_cuda:
        deepspeed.ops.__compatible_ops__ = {}
    return deepspeed


class ForwardOnly:
    """A module that is asked and never trained."""

    def __init__(self, module: nn.Module) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._module = module.to(self.device)

    def forward(self, *inputs: Any) -> Tensor:
        output: Tensor = self._module(*inputs)
        return output


class Engine:
    """A module and its AdamW, sharded by ZeRO over the ranks.

    Gradients are summed over ranks and over `backward` calls: each caller divides its loss by the count of the whole
    optimizer step, so that neither the cut into micro-batches nor the number of ranks changes the result.

    Args:
        allocation: of the ranks of an adapter that drops some after steps.
    """

    def __init__(
        self,
        module: nn.Module,
        groups: Sequence[ParameterGroup],
        optimizer: OptimizerSettings,
        learner: LearnerSettings,
        zero_stage: int,
        rank: Rank,
        allocation: RankAllocation | None = None,
    ) -> None:
        self._allocation = allocation
        use_cuda = torch.cuda.is_available()
        deepspeed = import_deepspeed(use_cuda)
        self.groups, self.world_size, self.max_grad_norm = groups, rank.world_size, optimizer.max_grad_norm
        self._stage, self._is_offloaded = zero_stage, learner.offload_optimizer != "none"
        adamw, self._moments = open_adamw(
            learner.optimizer,
            [{"params": list(group.parameters.values()), "lr": group.learning_rate} for group in groups],
            optimizer.weight_decay,
        )
        self._engine, _, _, _ = deepspeed.initialize(
            model=module,
            optimizer=adamw,
            config={
                "train_micro_batch_size_per_gpu": 1,
                "gradient_accumulation_steps": 1,
                "zero_optimization": {"stage": zero_stage, **_offloads(learner)},
                "zero_allow_untested_optimizer": True,
                "zero_force_ds_cpu_optimizer": False,  # torch has a fused AdamW for CPUs, which is not compiled.
                "gradient_clipping": 0.0,
                "steps_per_print": 10**12,
            },
        )
        self._has_nothing_to_reduce = zero_stage == 0 and rank.world_size == 1
        for tensor in updated_tensors(self._engine.optimizer, zero_stage, adamw.param_groups):
            self._moments.create(tensor)

    @property
    def device(self) -> torch.device:
        return self._engine.device

    def forward(self, *inputs: Any) -> Tensor:
        output: Tensor = self._engine(*inputs)
        return output

    def backward(self, loss: Tensor, is_last: bool) -> None:
        """Accumulate the gradients of a part of the step's loss; `is_last` says that `step` comes next."""
        # Where it reduces, DeepSpeed copies all gradients into a buffer and back, also of one rank.
        self._engine.set_gradient_accumulation_boundary(
            is_last and not self._has_nothing_to_reduce and not self._is_moved_last
        )
        # DeepSpeed averages over ranks; the loss is a part of one sum.
        self._engine.backward(loss * self.world_size, scale_wrt_gas=False)

    @property
    def _is_moved_last(self) -> bool:
        """Whether gradients go to main memory when all backwards are done.

        DeepSpeed moves those of a step's last backward; of several objectives, that is one's alone.
        """
        return self._is_offloaded and self._stage >= 2

    def step(self, learning_rate_scale: float, num_steps: int | None = None) -> dict[str, float]:
        """Clip each group by itself, then update. Returns group -> gradient norm before clipping.

        DeepSpeed's own clipping takes all groups together: a critic's large gradients would shrink the policy's step.

        Args:
            num_steps: that there will be in all; known where ranks are dropped after them.

        Raises:
            NotFinite: a gradient is not finite; nothing was updated.
        """
        if self._is_moved_last:
            self._engine.optimizer.finalize_gradient_accumulation_boundary()
        norms = self._norms()
        if not all(math.isfinite(norm) for norm in norms.values()):
            raise NotFinite(f"gradient norms are {norms}")
        for group in self.groups:
            if norms[group.name] > self.max_grad_norm:
                for parameter in group.parameters.values():
                    scale_gradient(parameter, self._engine.optimizer, self.max_grad_norm / norms[group.name])
        for group, torch_group in zip(self.groups, self._engine.optimizer.param_groups, strict=True):
            torch_group["lr"] = group.learning_rate * learning_rate_scale
        gradients = {} if self._allocation is None else self._whole_gradients()
        self._engine.set_gradient_accumulation_boundary(True)
        self._engine.step()
        forget_gradients(self._engine.optimizer, self._stage, self._is_offloaded)
        if self._allocation is not None:
            assert num_steps is not None, "ranks are dropped by a schedule"
            self._drop_ranks(self._allocation, gradients, num_steps)
        return norms

    def _whole_gradients(self) -> dict[str, Tensor]:
        zero = self._engine.optimizer
        return {name: whole_gradient(parameter, zero, self.device) for name, parameter in self._trainable()}

    def _drop_ranks(self, allocation: RankAllocation, gradients: Mapping[str, Tensor], num_steps: int) -> None:
        """Zero the factors of those that are no longer there. Collective: every rank chooses the same."""
        parameters = dict(self._trainable())
        weights = {name: self._whole_parameter(parameter) for name, parameter in parameters.items()}
        step = int(self._moments.num_steps())
        for name, factors in allocation.after_step(step, num_steps, weights, gradients).items():
            set_parameter(parameters[name], self._engine.optimizer, factors)

    def _norms(self) -> dict[str, float]:
        """Group -> norm of its gradient, of which no rank has more than its part: their squares are added up."""
        sums = torch.zeros(len(self.groups), device=self.device)
        for index, group in enumerate(self.groups):
            for parameter in group.parameters.values():
                found = square_sum(parameter, self._engine.optimizer)
                sums[index] += 0.0 if found is None else found.to(self.device)
        if self._stage > 0 and self.world_size > 1:
            distributed.all_reduce(sums)
        return {group.name: float(norm) for group, norm in zip(self.groups, sums.sqrt(), strict=True)}

    # ---------------------------------------------------------------------------------------------------- state by name

    def whole_parameters(self, names: Collection[str], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        """Name and whole trainable parameter on the CPU, one after another, whatever the ZeRO stage, of these names.

        Collective, and every rank must take all that comes.
        """
        for name, parameter in self._trainable():
            if name in names:
                yield name, self._whole_parameter(parameter).to(dtype).cpu()

    def sizes(self) -> dict[str, int]:
        """Name -> number of elements: of each whole trainable parameter, and of `step`."""
        return {name: shape_of(parameter).numel() for name, parameter in self._trainable()} | {"step": 1}

    def state(self, names: Collection[str]) -> Iterator[tuple[str, Tensor]]:
        """`param.NAME`, moments and scores of these parameters, and `step` if it is one of the names; on the CPU.

        Of all names in `sizes` that is what AdamW needs to continue. Collective, and every rank must take all that
        comes: each parameter is put together on every rank when its turn is, and is given where it was asked for.
        """
        zero = self._engine.optimizer
        if "step" in names:
            yield "step", self._moments.num_steps()
        for name, parameter in self._trainable():
            part = part_of(parameter, zero)
            whole = self._whole_parameter(parameter)
            own = {field: None if part is None else self._moments.own(part, field) for field in self._moments.fields}
            wholes = {field: gathered(parameter, part, mine, self.device) for field, mine in own.items()}
            if name in names:
                yield f"param.{name}", whole.cpu()
                yield from self._moments.stored(name, wholes).items()
                yield from {} if self._allocation is None else self._allocation.stored(name).items()

    def _whole_parameter(self, parameter: nn.Parameter) -> Tensor:
        """In float32, of which the optimizer may have more digits than the model. Collective."""
        part = part_of(parameter, self._engine.optimizer)
        mine = None if part is None else part.read(part.updated.detach())
        return gathered(parameter, part, mine, self.device)

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state` gave, from any ZeRO stage and number of ranks. Collective.

        Raises:
            ValueError: names or shapes are not this model's.
        """
        expected = {f"param.{name}" for name, _ in self._trainable()}
        given = {name for name in tensors if name.startswith("param.")}
        if given != expected:
            raise ValueError(
                f"the checkpoint is of another model: {sorted(given ^ expected)[:4]} stand on one side only"
            )
        zero = self._engine.optimizer
        for name, parameter in self._trainable():
            set_parameter(parameter, zero, tensors[f"param.{name}"].to(self.device))
        parts = {name: part_of(parameter, zero) for name, parameter in self._trainable()}
        self._moments.restore(parts, tensors)
        if self._allocation is not None:
            self._allocation.restore(tensors, self.device)
        self._moments.set_steps(tensors["step"])

    def _trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        for group in self.groups:
            yield from group.parameters.items()


def _offloads(learner: LearnerSettings) -> dict[str, dict[str, str]]:
    """As DeepSpeed's `zero_optimization` has them."""
    asked = {"offload_optimizer": learner.offload_optimizer, "offload_param": learner.offload_params}
    return {name: {"device": target} for name, target in asked.items() if target != "none"}
