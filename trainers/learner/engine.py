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
from plumbob.core.errors import NotFinite

MOMENTS = ("exp_avg", "exp_avg_sq")


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
    """

    def __init__(
        self,
        module: nn.Module,
        groups: Sequence[ParameterGroup],
        optimizer: OptimizerSettings,
        zero_stage: int,
        rank: Rank,
    ) -> None:
        use_cuda = torch.cuda.is_available()
        deepspeed = import_deepspeed(use_cuda)
        self.groups, self.world_size, self.max_grad_norm = groups, rank.world_size, optimizer.max_grad_norm
        adamw = torch.optim.AdamW(
            [{"params": list(group.parameters.values()), "lr": group.learning_rate} for group in groups],
            weight_decay=optimizer.weight_decay,
            fused=True,
        )
        self._engine, _, _, _ = deepspeed.initialize(
            model=module,
            optimizer=adamw,
            config={
                "train_micro_batch_size_per_gpu": 1,
                "gradient_accumulation_steps": 1,
                "zero_optimization": {"stage": zero_stage},
                "zero_allow_untested_optimizer": True,
                "gradient_clipping": 0.0,
                "steps_per_print": 10**12,
            },
        )
        self._adamw = adamw
        self._has_nothing_to_reduce = zero_stage == 0 and rank.world_size == 1
        self._create_moments()

    @property
    def device(self) -> torch.device:
        return self._engine.device

    def forward(self, *inputs: Any) -> Tensor:
        output: Tensor = self._engine(*inputs)
        return output

    def backward(self, loss: Tensor, is_last: bool) -> None:
        """Accumulate the gradients of a share of the step's loss; `is_last` says that `step` comes next."""
        # Where it reduces, DeepSpeed copies all gradients into a buffer and back, also of one rank.
        self._engine.set_gradient_accumulation_boundary(is_last and not self._has_nothing_to_reduce)
        # DeepSpeed averages over ranks; the loss is a share of one sum.
        self._engine.backward(loss * self.world_size, scale_wrt_gas=False)

    def step(self, learning_rate_scale: float) -> dict[str, float]:
        """Clip each group by itself, then update. Returns group -> gradient norm before clipping.

        DeepSpeed's own clipping takes all groups together: a critic's large gradients would shrink the policy's step.

        Raises:
            NotFinite: a gradient is not finite; nothing was updated.
        """
        norms = {group.name: self._clip(group) for group in self.groups}
        if not all(math.isfinite(norm) for norm in norms.values()):
            raise NotFinite(f"gradient norms are {norms}")
        for group, torch_group in zip(self.groups, self._engine.optimizer.param_groups, strict=True):
            torch_group["lr"] = group.learning_rate * learning_rate_scale
        self._engine.set_gradient_accumulation_boundary(True)
        self._engine.step()
        self._forget_gradients()
        return norms

    def _forget_gradients(self) -> None:
        """Under ZeRO-3, zero what the next step adds to.

        DeepSpeed overwrites old gradients in a step's first backward alone; the critic's is not the first.
        """
        from deepspeed.utils import safe_get_local_grad, safe_set_local_grad

        for _, parameter in self._trainable():
            if hasattr(parameter, "ds_id"):
                safe_set_local_grad(parameter, torch.zeros_like(safe_get_local_grad(parameter)))

    def _clip(self, group: ParameterGroup) -> float:
        from deepspeed import utils

        parameters = list(group.parameters.values())
        for parameter in parameters if self._has_nothing_to_reduce else ():
            if parameter.grad is None:  # Of what the loss does not reach; where DeepSpeed reduces, it does the same.
                parameter.grad = torch.zeros_like(parameter)
        gradients = [utils.safe_get_full_grad(parameter) for parameter in parameters]  # Copies, but at stage 0.
        norm = float(torch.stack([gradient.float().square().sum() for gradient in gradients]).sum().sqrt())
        if norm > self.max_grad_norm:
            factor = self.max_grad_norm / norm
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if hasattr(parameter, "ds_id"):  # ZeRO-3: whole gradients that the ranks do not divide cannot be set.
                    utils.safe_set_local_grad(parameter, utils.safe_get_local_grad(parameter) * factor)
                else:
                    utils.safe_set_full_grad(parameter, gradient.mul_(factor))
        return norm

    # ---------------------------------------------------------------------------------------------------- state by name

    def full_parameters(self) -> dict[str, Tensor]:
        """Name -> whole trainable parameter, float32 on the CPU, whatever the ZeRO stage. Every rank must call it."""
        return {name: self._whole(parameter, None).float().cpu().clone() for name, parameter in self._trainable()}

    def sizes(self) -> dict[str, int]:
        """Name -> number of elements: of each whole trainable parameter, and of `step`."""
        sizes = {name: getattr(parameter, "ds_numel", parameter.numel()) for name, parameter in self._trainable()}
        return sizes | {"step": 1}

    def state(self, names: Collection[str]) -> dict[str, Tensor]:
        """`param.NAME`, `exp_avg.NAME` and `exp_avg_sq.NAME` of these parameters, and `step` if it is one of the names.

        Of all names in `sizes` that is what AdamW needs to continue. Collective: each parameter is gathered on every
        rank for a moment, and stays, float32 on the CPU, where it was asked for.
        """
        tensors = {}
        if "step" in names:
            tensors["step"] = next(iter(self._adamw.state.values()))["step"].clone()
        for name, parameter in self._trainable():
            whole = {"param": self._whole(parameter, None)} | {m: self._whole(parameter, m) for m in MOMENTS}
            if name in names:
                tensors |= {f"{kind}.{name}": tensor.float().cpu().clone() for kind, tensor in whole.items()}
        return tensors

    def _whole(self, parameter: nn.Parameter, moment: str | None) -> Tensor:
        """A parameter, or a moment of Adam's. Collective."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        if moment is None:
            full = safe_get_full_fp32_param(parameter)
            return parameter.detach() if full is None else full
        full = safe_get_full_optimizer_state(parameter, moment)
        return self._adamw.state[parameter][moment] if full is None else full

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state` gave, from any ZeRO stage and number of ranks. Collective.

        Raises:
            ValueError: names or shapes are not this model's.
        """
        expected = {f"param.{name}": p for name, p in self._trainable()}
        given = {name for name in tensors if name.startswith("param.")}
        if given != set(expected):
            raise ValueError(
                f"the checkpoint is of another model: {sorted(given ^ set(expected))[:4]} stand on one side only"
            )
        for name, parameter in self._trainable():
            self._set(parameter, tensors[f"param.{name}"], None)
            for moment in MOMENTS:
                self._set(parameter, tensors[f"{moment}.{name}"], moment)
        for state in self._adamw.state.values():
            state["step"] = tensors["step"].clone()

    def _trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        for group in self.groups:
            yield from group.parameters.items()

    def _create_moments(self) -> None:
        """Make Adam's moments now and link them to the parameters.

        DeepSpeed links them after the first group's first step, when the other groups have none yet, and never again.
        """
        for tensor in self._adamw_tensors():
            self._adamw.state[tensor] = {
                "step": torch.zeros((), dtype=torch.float32),
                "exp_avg": torch.zeros_like(tensor, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(tensor, requires_grad=False),
            }
        link = getattr(self._engine.optimizer, "_lazy_init_hp_params_optimizer_state", None)
        if link is not None:
            link()

    def _adamw_tensors(self) -> list[Tensor]:
        """The tensors that AdamW really updates: parameters (stage 0) or flat partitions (stages 1 to 3)."""
        zero = self._engine.optimizer
        if hasattr(zero, "fp32_partitioned_groups_flat"):
            return list(zero.fp32_partitioned_groups_flat)
        if hasattr(zero, "single_partition_of_fp32_groups"):
            return list(zero.single_partition_of_fp32_groups)
        return [parameter for group in self._adamw.param_groups for parameter in group["params"]]

    def _set(self, parameter: nn.Parameter, value: Tensor, moment: str | None) -> None:
        value = value.to(self.device)
        if hasattr(parameter, "ds_id"):
            self._set_stage3(parameter, value, moment)
            return
        if hasattr(parameter, "_hp_mapping"):
            from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

            if moment is None:
                safe_set_full_fp32_param(parameter, value)
            else:
                safe_set_full_optimizer_state(parameter, value, moment)
        elif moment is not None:
            self._adamw.state[parameter][moment].copy_(value)
        if moment is None:
            parameter.data.copy_(value)

    def _set_stage3(self, parameter: Any, value: Tensor, moment: str | None) -> None:
        zero = self._engine.optimizer
        partition, _ = zero._get_fp32_opt_state_partition(parameter, False, moment)
        size = partition.numel()
        padded = nn.functional.pad(value.flatten(), (0, size * self.world_size - value.numel()))
        mine = padded.narrow(0, size * zero._get_param_partition_rank(parameter), size)
        partition.data.copy_(mine)
        if moment is None:
            parameter.ds_tensor.data.narrow(0, 0, size).copy_(mine)
            if parameter.numel() == value.numel():  # A small one stays gathered: the next forward reads it as it is.
                parameter.data.copy_(value)
