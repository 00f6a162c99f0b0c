"""Adam's two moments, in float32 or in 8 bits: how the optimizer has them, and a checkpoint by parameter.

The parts of a parameter that ranks have are put together element by element. In 8 bits an element has a code, and the
scale of the block that it lies in, whose borders are another rank's or stage's elsewhere: a checkpoint has the codes,
and the scales as runs. Where the blocks are the same ones again, they are again the same to the bit.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from plumbob.trainers.learner.zero_parts import Part

FIRST_AND_SECOND = ("exp_avg", "exp_avg_sq")

Parts = Mapping[str, Part | None]
"""Parameter -> what of it is this rank's."""


class Moments(Protocol):
    """Those of one optimizer.

    Attributes:
        fields: what each element of a parameter has, to be put together from all ranks by `own`.
    """

    @property
    def fields(self) -> Sequence[str]: ...
    def create(self, tensor: Tensor) -> None:
        """Zero those of a tensor that the optimizer updates, before its first step.

        DeepSpeed takes a group's for there after the first group's first step, when the other groups have none yet.
        """

    def own(self, part: Part, field: str) -> Tensor:
        """Of this rank's elements [size], exact in float32."""

    def stored(self, name: str, wholes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of a whole parameter as a checkpoint has them, on the CPU. `wholes`: field -> of all its elements."""

    def restore(self, parts: Parts, tensors: Mapping[str, Tensor]) -> None:
        """Take this rank's from what `stored` gave."""

    def num_steps(self) -> Tensor: ...

    def set_steps(self, num_steps: Tensor) -> None: ...


class Float32Moments:
    """Of torch's AdamW: as many numbers as what is updated has, and in its dtype."""

    fields = FIRST_AND_SECOND

    def __init__(self, adamw: torch.optim.Optimizer) -> None:
        self._adamw = adamw

    def create(self, tensor: Tensor) -> None:
        zeros = {field: torch.zeros_like(tensor, requires_grad=False) for field in self.fields}
        self._adamw.state[tensor] = {"step": torch.zeros((), device=tensor.device), **zeros}

    def own(self, part: Part, field: str) -> Tensor:
        return part.read(self._adamw.state[part.updated][field])

    def stored(self, name: str, wholes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {f"{field}.{name}": wholes[field].cpu() for field in self.fields}

    def restore(self, parts: Parts, tensors: Mapping[str, Tensor]) -> None:
        for name, part in parts.items():
            if part is None:
                continue
            for field in self.fields:
                part.write(self._adamw.state[part.updated][field], tensors[f"{field}.{name}"])

    def num_steps(self) -> Tensor:
        step: Tensor = next(iter(self._adamw.state.values()))["step"]
        return step.cpu().clone()

    def set_steps(self, num_steps: Tensor) -> None:
        for state in self._adamw.state.values():
            state["step"].copy_(num_steps)


class EightBitMoments:
    """Of bitsandbytes' AdamW: a code for each number, and a scale for each block of them."""

    fields = tuple(f"{moment}{of}" for moment in FIRST_AND_SECOND for of in ("", "_scale"))

    def __init__(self, adamw: torch.optim.Optimizer) -> None:
        self._adamw = adamw

    def create(self, tensor: Tensor) -> None:
        from plumbob.models.quantization.eight_bit_adamw import create_state

        create_state(self._adamw, tensor)

    def own(self, part: Part, field: str) -> Tensor:
        from plumbob.models.quantization.eight_bit_adamw import BLOCK

        number = 1 + FIRST_AND_SECOND.index(field.removesuffix("_scale"))
        state = self._adamw.state[part.updated]
        if not field.endswith("_scale"):
            return part.read(state[f"state{number}"]).float()
        scales: Tensor = state[f"absmax{number}"]
        return scales[torch.arange(part.start, part.start + part.size, device=scales.device) // BLOCK]

    def stored(self, name: str, wholes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for moment in FIRST_AND_SECOND:
            scales, lengths = wholes[f"{moment}_scale"].flatten().unique_consecutive(return_counts=True)
            tensors |= {
                f"{moment}.{name}": wholes[moment].to(torch.uint8).cpu(),
                f"{moment}_scale.{name}": scales.cpu(),
                f"{moment}_run.{name}": lengths.to(torch.int32).cpu(),
            }
        return tensors

    def restore(self, parts: Parts, tensors: Mapping[str, Tensor]) -> None:
        from plumbob.models.quantization.eight_bit_adamw import in_blocks

        for updated, own in _by_tensor(parts):
            for number, moment in enumerate(FIRST_AND_SECOND, start=1):
                codes = torch.zeros(updated.numel(), dtype=torch.uint8, device=updated.device)
                scales = torch.full((updated.numel(),), torch.nan, device=updated.device)
                for name, part in own.items():
                    lengths = tensors[f"{moment}_run.{name}"].long()
                    each = tensors[f"{moment}_scale.{name}"].repeat_interleave(lengths)
                    part.write(codes, tensors[f"{moment}.{name}"])
                    part.write(scales, each)
                found, absmax = in_blocks(codes, scales, is_second=number == 2)
                state = self._adamw.state[updated]
                state[f"state{number}"].copy_(found.view(updated.shape))
                state[f"absmax{number}"].copy_(absmax)

    def num_steps(self) -> Tensor:
        return torch.tensor(float(next(iter(self._adamw.state.values()))["step"]))

    def set_steps(self, num_steps: Tensor) -> None:
        for state in self._adamw.state.values():
            state["step"] = int(num_steps)


def _by_tensor(parts: Parts) -> Iterator[tuple[Tensor, dict[str, Part]]]:
    """Each tensor that is updated, with the parts that lie in it."""
    tensors: dict[int, tuple[Tensor, dict[str, Part]]] = {}
    for name, part in parts.items():
        if part is not None:
            tensors.setdefault(id(part.updated), (part.updated, {}))[1][name] = part
    yield from tensors.values()


def open_adamw(
    kind: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"], groups: Sequence[dict[str, Any]], weight_decay: float
) -> tuple[torch.optim.Optimizer, Moments]:
    """An AdamW of these parameters, and its moments. `groups`: as torch's optimizers take them."""
    if kind == "adamw":
        adamw: torch.optim.Optimizer = torch.optim.AdamW(list(groups), weight_decay=weight_decay, fused=True)
        return adamw, Float32Moments(adamw)
    from plumbob.models.quantization.eight_bit_adamw import open_adamw_8bit

    adamw = open_adamw_8bit(groups, weight_decay, is_paged=kind == "paged_adamw_8bit")
    return adamw, EightBitMoments(adamw)
