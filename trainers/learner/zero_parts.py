"""Which part of each parameter is this rank's to update, in the tensors that DeepSpeed gives the optimizer (Part).

the parameters of a group  [     a     | b |     c     ]
stage 0                    each as it is, on every rank
stages 1 and 2             [   rank 0    |   rank 1    ]  end to end, a rank's stretch in one flat float32 tensor
stage 3                    [  0  |  1  |0|1|  0  |  1  ]  each one divided; a rank's parts lie end to end
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class Part:
    """A rank's part of one parameter.

    Attributes:
        updated: the tensor that the optimizer updates, in which the part lies; at stage 0 the parameter itself.
        start: its first element in `updated`.
        offset: its first element in the parameter, flattened.
        size: its number of elements, without padding.
    """

    updated: Tensor
    start: int
    offset: int
    size: int

    def read(self, tensor: Tensor) -> Tensor:
        """Its elements [size] in a tensor that is laid out as `updated` is."""
        return tensor.reshape(-1).narrow(0, self.start, self.size)

    def write(self, tensor: Tensor, whole: Tensor) -> None:
        """Copy its elements of a whole parameter into a tensor that is laid out as `updated` is."""
        mine = whole.flatten().narrow(0, self.offset, self.size)
        if self.size == tensor.numel():
            tensor.copy_(mine.view(tensor.shape))
        else:
            tensor.narrow(0, self.start, self.size).copy_(mine)


def is_divided(parameter: nn.Parameter) -> bool:
    """Whether ranks share its update: ZeRO stages 1 to 3."""
    return hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping")


def shape_of(parameter: Any) -> torch.Size:
    """Of the whole: at stage 3 the parameter itself is empty while nothing is computed with it."""
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))


def part_of(parameter: Any, zero: Any) -> Part | None:
    """This rank's part; None where it has nothing of the parameter. `zero`: DeepSpeed's optimizer."""
    if hasattr(parameter, "ds_id"):
        index, start, padded = zero.grad_position[zero.get_param_id(parameter)]
        offset = min(padded * zero._get_param_partition_rank(parameter), parameter.ds_numel)
        size = min(padded, parameter.ds_numel - offset)
        return Part(zero.fp32_partitioned_groups_flat[index], start, offset, size)
    if hasattr(parameter, "_hp_mapping"):
        if parameter._hp_mapping is None:
            return None
        flat = zero.single_partition_of_fp32_groups[parameter._hp_mapping.param_group_index]
        there, here = parameter._hp_mapping.hp_fragment_address, parameter._hp_mapping.lp_fragment_address
        return Part(flat, there.start, here.start, here.numel)
    return Part(parameter, 0, 0, parameter.numel())


def gathered(parameter: nn.Parameter, part: Part | None, mine: Tensor | None, device: torch.device) -> Tensor:
    """A whole tensor in float32 from every rank's elements of it: of the parameter, or of what is of its shape.

    Collective, but at stage 0.
    """
    shape = shape_of(parameter)
    if not is_divided(parameter):
        assert mine is not None, "at stage 0 every rank has it all"
        return mine.float().view(shape)
    whole = torch.zeros(shape.numel(), device=device)
    if part is not None and mine is not None:
        whole.narrow(0, part.offset, part.size).copy_(mine)
    if distributed.get_world_size() > 1:
        distributed.all_reduce(whole)  # Of zeros but from one rank: exact.
    return whole.view(shape)


def set_parameter(parameter: Any, zero: Any, whole: Tensor) -> None:
    """Give a parameter its values, where the optimizer has them and where the model does."""
    part = part_of(parameter, zero)
    with torch.no_grad():
        if part is not None:
            part.write(part.updated, whole)
        if hasattr(parameter, "ds_id") and part is not None:
            parameter.ds_tensor.data.narrow(0, 0, part.size).copy_(part.read(part.updated))
        if parameter.numel() == whole.numel():  # At stage 3 a small one stays gathered: it is read as it is.
            parameter.data.copy_(whole)


def updated_tensors(zero: Any, stage: int, groups: list[dict[str, Any]]) -> list[Tensor]:
    """The tensors that the optimizer updates. `groups`: its own, which are right at stage 0."""
    match stage:
        case 0:
            return [parameter for group in groups for parameter in group["params"]]
        case 3:
            return list(zero.fp32_partitioned_groups_flat)
        case _:
            return list(zero.single_partition_of_fp32_groups)


# ------------------------------------------------------------------------------------------------------------ gradients


def own_gradient(parameter: Any, zero: Any) -> Tensor | None:
    """Of this rank's part, once all ranks' gradients are added up; at stage 3 with padding. None where it has none.

    Nothing is copied, but at stage 3 where gradients are not kept in float32 beside the weights.
    """
    if hasattr(parameter, "ds_id"):
        gradient: Tensor = zero.get_local_fp32_grad_for_param(parameter)
        return gradient
    if hasattr(parameter, "_hp_mapping"):
        mapping = parameter._hp_mapping
        return None if mapping is None else mapping.get_lp_grad_fragment(parameter._index_in_param_group)
    if parameter.grad is None:  # Of what the loss does not reach; where DeepSpeed reduces, it does the same.
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def scale_gradient(parameter: Any, zero: Any, factor: float) -> None:
    gradient = own_gradient(parameter, zero)
    if gradient is None:
        return
    gradient.mul_(factor)
    if hasattr(parameter, "ds_id"):
        zero.set_local_grad_for_param(gradient, parameter)


def square_sum(parameter: Any, zero: Any) -> Tensor | None:
    """Of this rank's part of the gradient."""
    gradient, part = own_gradient(parameter, zero), part_of(parameter, zero)
    if gradient is None or part is None:
        return None
    return gradient.reshape(-1)[: part.size].float().square().sum()


def whole_gradient(parameter: Any, zero: Any, device: torch.device) -> Tensor:
    """In float32, a copy. Collective, but at stage 0."""
    gradient, part = own_gradient(parameter, zero), part_of(parameter, zero)
    mine = None if gradient is None or part is None else gradient.reshape(-1)[: part.size]
    return gathered(parameter, part, mine, device).clone()


def forget_gradients(zero: Any, stage: int, is_offloaded: bool) -> None:
    """Zero what the next step adds to, after a step.

    Under ZeRO-3, and with gradients in main memory, DeepSpeed overwrites old ones in a step's first backward alone; the
    critic's is not the first.
    """
    if stage == 3:
        zero.grad_partitions_flat_buffer.zero_()
    elif is_offloaded:
        for gradient in zero.accumulated_grads_in_cpu.values():
            gradient.zero_()
    for tensor in updated_tensors(zero, stage, []) if is_offloaded else ():
        assert tensor.grad is not None, "it has a buffer of its own"
        tensor.grad.zero_()
