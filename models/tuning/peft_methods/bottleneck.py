"""Bottleneck adapters as a tuning method: behind which layers they stand, by the names that families give these."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from transformers import AutoModelForCausalLM

from plumbob.configs.settings.models import NewLlamaSettings
from plumbob.configs.settings.tuning.adapters import BottleneckActivation, BottleneckTuning
from plumbob.core.errors import UserError
from plumbob.models.adapter import ModelRole
from plumbob.models.from_scratch import NEW_POLICY, empty_llama
from plumbob.models.loading import OpenedPolicy
from plumbob.models.sizes.adapter_size import AdapterSize
from plumbob.models.sizes.config_sizes import sizes_of
from plumbob.models.sizes.kept_activations import Beside
from plumbob.models.tuning.adapter_fields import (
    CARRIED,
    NOBODY,
    NOT_LINEAR,
    OF_ANY,
    WITH_PEFT,
    AdapterField,
    PeftKind,
)
from plumbob.models.tuning.adapter_support import AdapterSupport, check_computed
from plumbob.models.tuning.targets import num_outputs, target_modules

if TYPE_CHECKING:
    from plumbob.models.policy import PolicyModel

BLOCK_ENDS: tuple[tuple[str, str], ...] = (
    ("self_attn.o_proj", "mlp.down_proj"),
    ("self_attn.out_proj", "fc2"),
    ("dense", "dense_4h_to_h"),
    ("attn.c_proj", "mlp.c_proj"),
)
"""What families of models call the last layers of attention and of the feed-forward block, of which each layer has one
each. What they put out is added to the residual stream: in Gemma 2 and 3, OLMo 2 and GLM-4 after a norm."""


_OF_BOTTLENECKS = (
    *("auto_mapping", "peft_version", "base_model_name_or_path", "inference_mode", "task_type", "revision"),
    "target_modules",
)
_FIELDS: Mapping[str, AdapterField] = {
    **{name: field for name, field in OF_ANY.items() if name in _OF_BOTTLENECKS},
    "peft_type": AdapterField(WITH_PEFT, instead=NOT_LINEAR),
    "width": CARRIED,
    "activation": AdapterField(
        NOBODY, get_args(BottleneckActivation), f"train it with one of {', '.join(get_args(BottleneckActivation))}"
    ),
}

BOTTLENECK = PeftKind(
    _FIELDS, lambda config: "pfeiffer" if len(config.get("target_modules") or ()) == 1 else "houlsby", ".bottleneck_"
)


def block_ends(model: Any, tuning: BottleneckTuning) -> tuple[str, ...] | None:
    """Ends of the names of the layers that adapters stand behind; None where these are not known.

    Args:
        model: which may be one without weights.
    """
    num_layers = sizes_of(model).num_layers
    for attention, feedforward in BLOCK_ENDS:
        if all(len(target_modules(model, [name])) == num_layers for name in (attention, feedforward)):
            return (attention, feedforward) if tuning.placement == "houlsby" else (feedforward,)
    return None


@dataclass(frozen=True)
class BottleneckMethod:
    """Trains W_up, W_down and their biases in h + W_up f(W_down h) behind blocks (arXiv 1902.00751, 2005.00247)."""

    tuning: BottleneckTuning

    def check(self, opened: OpenedPolicy, setting: str, roles: tuple[ModelRole, ...], support: AdapterSupport) -> None:
        model, base = opened.empty(AutoModelForCausalLM), opened.source.base
        self._check(model, base, setting, support, opened.config.architectures or ())

    def check_new(self, spec: NewLlamaSettings, setting: str, support: AdapterSupport) -> None:
        self._check(empty_llama(spec), f"the new {spec.setting}", setting, support, (NEW_POLICY,))

    def _check(
        self, model: Any, base: str, setting: str, support: AdapterSupport, architectures: Collection[str]
    ) -> None:
        check_computed(self.tuning, support, f"{setting}.kind=bottleneck", architectures)
        if block_ends(model, self.tuning) is None:
            raise UserError(
                f"{setting}.kind=bottleneck: what the last layers of attention and feed-forward blocks are called in "
                f"{base} is not known; set {setting}.kind=lora"
            )

    @property
    def beside(self) -> Beside:
        return self.tuning.placement

    def size(self, model: Any) -> AdapterSize:
        """W_down [width, out] and W_up [out, width], each with a bias."""
        ends, width = target_modules(model, block_ends(model, self.tuning) or ()), self.tuning.width
        return AdapterSize(sum(2 * out * width + width + out for out in map(num_outputs, ends.values())))

    def policy(self, opened: OpenedPolicy, roles: tuple[ModelRole, ...], seed: int) -> "PolicyModel":
        from plumbob.models.tuning.layers.bottleneck_layers import BottleneckConfig, register_bottleneck
        from plumbob.models.tuning.roles import adapted_policy

        register_bottleneck()
        # An adapter has a config of its own, on whatever model.
        model = None if opened.source.adapter is not None else opened.empty(AutoModelForCausalLM)
        config = BottleneckConfig(
            target_modules=list((None if model is None else block_ends(model, self.tuning)) or ()),
            width=self.tuning.width,
            activation=self.tuning.activation,
            task_type="CAUSAL_LM",
            base_model_name_or_path=opened.source.base,
        )
        return adapted_policy(opened, config, roles, seed)
