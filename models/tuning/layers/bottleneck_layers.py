"""Bottleneck adapters as PEFT makes adapters, which has none of this kind: their layers, config, and how PEFT is told.

    last layer of a block --> h --> h + W_up f(W_down h + b_down) + b_up --> added to the residual stream

W_up and b_up begin at zero, so that a new adapter changes nothing (Houlsby et al. 2019, arXiv 1902.00751).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from plumbob.configs.settings.tuning.adapters import BottleneckActivation, BottleneckTuning

ACTIVATIONS: Mapping[BottleneckActivation, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
}
"""f, by name."""


@dataclass
class BottleneckConfig(PeftConfig):
    """The content of `adapter_config.json`.

    Attributes:
        target_modules: linear layers, by the ends of their names from a dot on, behind which an adapter stands.
        width: numbers between W_down and W_up.
        activation: what f is.
    """

    target_modules: list[str] | None = None
    width: int = 64
    activation: BottleneckActivation = "gelu"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = BottleneckTuning.peft_type


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """A linear layer, and the adapters behind it."""

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    other_param_names = ("bottleneck_activation",)

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: BottleneckConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_down, self.bottleneck_up = nn.ModuleDict(), nn.ModuleDict()
        self.bottleneck_activation: dict[str, BottleneckActivation] = {}
        self._active_adapter = adapter_name
        self.add(adapter_name, config)

    def add(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Put one more adapter behind the layer."""
        num_outputs: Any = self.base_layer.nf if isinstance(self.base_layer, Conv1D) else self.base_layer.out_features
        up = nn.Linear(config.width, num_outputs)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        self.bottleneck_down[adapter_name], self.bottleneck_up[adapter_name] = nn.Linear(num_outputs, config.width), up
        self.bottleneck_activation[adapter_name] = config.activation
        layer: Any = self
        layer._move_adapter_to_device_of_base_layer(adapter_name)
        layer.set_adapter(layer.active_adapters, inference_mode=config.inference_mode)

    def forward(self, x: Tensor, *args: Any, **named: Any) -> Tensor:
        layer: Any = self
        hidden: Tensor = layer.base_layer(x, *args, **named)
        if layer.disable_adapters:
            return hidden
        for name in layer.active_adapters:
            if name in self.bottleneck_down:
                hidden = hidden + self._change(name, hidden)
        return hidden

    def _change(self, name: str, hidden: Tensor) -> Tensor:
        down: Any = self.bottleneck_down[name]
        inner = ACTIVATIONS[self.bottleneck_activation[name]](down(hidden.to(down.weight.dtype)))
        change: Tensor = self.bottleneck_up[name](inner)
        return change.to(hidden.dtype)

    def merge(self, *_: Any, **__: Any) -> None:
        """PEFT asks it of every layer for `merge_and_unload`."""
        raise NotImplementedError("no weights compute the same as a bottleneck adapter: use it beside its base")


class BottleneckModel(BaseTuner):
    """A model with bottleneck adapters behind its targets, as PEFT holds it."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if isinstance(target, BottleneckLayer):
            target.add(adapter_name, peft_config)
        else:
            self._replace_module(parent, target_name, BottleneckLayer(target, adapter_name, peft_config), target)


def register_bottleneck() -> None:
    """Let PEFT make, save and load these adapters as it does its own; may be called again.

    `peft.utils.register_peft_method` takes names of PEFT's own list alone, and fills these tables.
    """
    kind = BottleneckTuning.peft_type
    PEFT_TYPE_TO_CONFIG_MAPPING[kind] = BottleneckConfig
    PEFT_TYPE_TO_TUNER_MAPPING[kind] = BottleneckModel
    PEFT_TYPE_TO_PREFIX_MAPPING[kind] = BottleneckModel.prefix
