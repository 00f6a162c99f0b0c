"""LoRA beside a frozen linear layer as one operation: PEFT's values, without its passes over the layer's output."""

from typing import Any

import torch
from peft.tuners import lora
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


def fuse_lora(model: nn.Module) -> None:
    """Let PEFT's LoRA layers on plain linear ones compute in one operation where they can. They stay PEFT's layers."""
    for layer in model.modules():
        if type(layer) is lora.Linear and type(layer.base_layer) is nn.Linear:
            layer.__class__ = FusedLoraLinear


class FusedLoraLinear(lora.Linear):
    """PEFT's layer, whose forward with one plain adapter is y = x W^T + b + s (x A^T) B^T in one operation."""

    def forward(self, x: Tensor, *args: Any, **named: Any) -> Tensor:
        adapter = None if args or named else self._plain_adapter(x)
        if adapter is None:
            result: Tensor = super().forward(x, *args, **named)
            return result
        base, down, up = self.base_layer, self.lora_A[adapter].weight, self.lora_B[adapter].weight
        found: Tensor = _LoraLinear.apply(x, base.weight, base.bias, down, up, self.scaling[adapter])
        return found

    def _plain_adapter(self, x: Tensor) -> str | None:
        """The active adapter; None if there is none, if there are several, or if PEFT would compute more than B A."""
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        (name,) = self.active_adapters
        if name not in self.lora_A or name in self.lora_variant or self.lora_B[name].bias is not None:
            return None
        dropout = self.lora_dropout[name]
        if dropout.training and getattr(dropout, "p", 0.0) > 0:
            return None
        base, down, up = self.base_layer.weight, self.lora_A[name].weight, self.lora_B[name].weight
        if base.requires_grad or any(hasattr(weight, "ds_id") for weight in (base, down, up)):
            return None  # ZeRO-3 gathers a layer's weight when the layer is called.
        numbers = {base.dtype, down.dtype, up.dtype}
        if not torch.is_autocast_enabled(x.device.type):
            numbers.add(x.dtype)
        return name if len(numbers) == 1 and base.dtype.is_floating_point else None


class _LoraLinear(torch.autograd.Function):
    """dx = dy W + s (dy B) A, dA = s (dy B)^T x, dB = s dy^T (x A^T); W and b are frozen.

    Thin products stand as [tokens, wide] times a matrix whose rows are wide, and as (low^T dy)^T: the other way round
    those of a CPU take two to five times as long.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scaling: float
    ) -> Tensor:
        device = x.device.type
        kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        with torch.autocast(device, enabled=False):
            inputs = x.reshape(-1, x.shape[-1]).to(kind)
            weight, down, scaled = weight.to(kind), down.to(kind), (up * scaling).to(kind).T.contiguous()
            low = inputs @ down.T
            y = functional.linear(inputs, weight, None if bias is None else bias.to(kind)).addmm_(low, scaled)
        ctx.save_for_backward(inputs, weight, down, scaled, low)
        ctx.scaling, ctx.shape, ctx.input_dtype, ctx.adapter_dtype = scaling, x.shape, x.dtype, up.dtype
        return y.reshape(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, Tensor | None, Tensor | None, None]:
        inputs, weight, down, scaled, low = ctx.saved_tensors
        dy = grad.reshape(-1, grad.shape[-1]).to(inputs.dtype)
        dy_low = dy @ scaled.T
        dx = grad_down = grad_up = None
        if ctx.needs_input_grad[0]:
            dx = (dy @ weight).addmm_(dy_low, down).reshape(ctx.shape).to(ctx.input_dtype)
        if ctx.needs_input_grad[3]:
            grad_down = (dy_low.T @ inputs).to(ctx.adapter_dtype)
        if ctx.needs_input_grad[4]:
            grad_up = (low.T @ dy).mul_(ctx.scaling).T.contiguous().to(ctx.adapter_dtype)
        return dx, None, None, grad_down, grad_up, None
