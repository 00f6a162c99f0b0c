"""A fused LoRA layer against PEFT's own: values and gradients, and the cases that are left to PEFT."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners import lora
from torch import Tensor, nn

from plumbob.models.adapter_switch import activate
from plumbob.models.tuning.layers import fused_lora
from plumbob.models.tuning.layers.fused_lora import FusedLoraLinear, fuse_lora


def both(bias: bool = True, **settings: Any) -> tuple[Any, Any]:
    """The same layer twice, with two adapters that are not zero: PEFT's, and fused."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(6, 5, bias=bias))
    config = LoraConfig(r=2, lora_alpha=3, target_modules=["0"], **settings)
    plain = get_peft_model(base, config, adapter_name="policy")
    plain.add_adapter("other", config)
    for name, parameter in plain.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter.requires_grad_())
    fused = copy.deepcopy(plain)
    fuse_lora(fused)
    assert type(fused.base_model.model[0]) is FusedLoraLinear and isinstance(fused.base_model.model[0], lora.Linear)
    return plain, fused


def outcome(model: Any, autocast: bool = False) -> dict[str, Tensor]:
    """The output, and gradients of the input and of what is trained, for an input [2, 3, 6]."""
    x = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = model(x)
    (y.float() * torch.linspace(0.5, 2.0, y.numel()).reshape(y.shape)).sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    assert x.grad is not None
    return found | {"output": y.detach(), "input": x.grad}


def check_same(found: dict[str, Tensor], expected: dict[str, Tensor], bound: float) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        torch.testing.assert_close(found[name], tensor, rtol=bound, atol=bound, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("adapter", ["policy", "other", None])
def test_values_and_gradients_are_peft_s(bias: bool, adapter: str | None) -> None:
    plain, fused = both(bias)
    for model in (plain, fused):
        activate(model, adapter)
    found = outcome(fused)
    check_same(found, outcome(plain), 1e-5)
    assert sum("lora_" in name for name in found) == (2 if adapter else 0)


def test_they_are_in_autocast_too() -> None:
    plain, fused = both()
    # bfloat16 has 8 bits: sums of a few terms of size 10 in another order.
    check_same(outcome(fused, autocast=True), outcome(plain, autocast=True), 0.1)


def test_an_input_without_gradient_has_none() -> None:
    _, fused = both()
    fused(torch.ones(1, 6)).sum().backward()
    assert fused.base_model.model[0].lora_A["policy"].weight.grad is not None


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"lora_bias": True}, {"lora_dropout": 0.5}])
def test_what_is_more_than_b_a_is_left_to_peft(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fused = both(**settings)
    monkeypatch.delattr(fused_lora, "_LoraLinear")
    outcomes = []
    for model in (plain, fused):
        torch.manual_seed(2)
        outcomes.append(outcome(model.train()))
    check_same(outcomes[1], outcomes[0], 0.0)


def test_plain_adapters_are_not_left_to_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    _, fused = both()
    monkeypatch.delattr(fused_lora, "_LoraLinear")
    with pytest.raises(NameError, match="_LoraLinear"):
        fused(torch.ones(1, 6))
