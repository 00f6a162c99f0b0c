"""Methods that train vectors alone: (IA)³ and VeRA, on the linear layers that are named."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from transformers import AutoModelForCausalLM

from plumbob.configs.settings.models import NewLlamaSettings
from plumbob.configs.settings.tuning.adapters import Ia3Tuning, VeraTuning
from plumbob.core.errors import UserError
from plumbob.models.adapter import ModelRole
from plumbob.models.from_scratch import NEW_POLICY, empty_llama
from plumbob.models.loading import OpenedPolicy
from plumbob.models.sizes.adapter_size import AdapterSize
from plumbob.models.sizes.kept_activations import Beside
from plumbob.models.tuning.adapter_fields import (
    CARRIED,
    MERGED_OR_PEFT,
    NOBODY,
    OF_ANY,
    AdapterField,
    PeftKind,
)
from plumbob.models.tuning.adapter_support import AdapterSupport, check_architecture, check_computed
from plumbob.models.tuning.targets import (
    ALL_LINEAR,
    LINEAR,
    check_named_modules,
    num_inputs,
    num_outputs,
    target_modules,
)

if TYPE_CHECKING:
    from peft import PeftConfig

    from plumbob.models.policy import PolicyModel

KEYS_VALUES_FEEDFORWARD: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("k_proj", "v_proj"), ("down_proj",)),
    (("k_proj", "v_proj"), ("fc2",)),
    (("query_key_value",), ("dense_4h_to_h",)),
    (("c_attn",), ("mlp.c_proj",)),
)
"""What families of models call the modules that (IA)³ scales: outputs of the first, inputs of the second."""


_IA3_FIELDS: Mapping[str, AdapterField] = {
    **OF_ANY,
    "peft_type": MERGED_OR_PEFT,
    "feedforward_modules": CARRIED,
    "init_ia3_weights": CARRIED,
}
_VERA_FIELDS: Mapping[str, AdapterField] = {
    **OF_ANY,
    "peft_type": MERGED_OR_PEFT,
    "r": CARRIED,
    "vera_dropout": CARRIED,
    "d_initial": CARRIED,
    "projection_prng_key": CARRIED,
    "init_weights": CARRIED,
    # Drawn anew from the key they may be others on another machine.
    "save_projection": AdapterField(
        NOBODY, instead="save it again with its projections (save_projection=true)", asks_when_off=True
    ),
}

IA3 = PeftKind(_IA3_FIELDS, lambda config: "ia3", ".ia3_")
VERA = PeftKind(_VERA_FIELDS, lambda config: "vera", ".vera_lambda_", ("base_model.vera_A", "base_model.vera_B"))


@dataclass(frozen=True)
class Ia3Method:
    """Trains a factor of each output, or of each input, of its targets (arXiv 2205.05638). All begin at 1."""

    tuning: Ia3Tuning

    def check(self, opened: OpenedPolicy, setting: str, roles: tuple[ModelRole, ...], support: AdapterSupport) -> None:
        check_architecture(opened, support)
        check_computed(self.tuning, support, f"{setting}.kind=ia3", opened.config.architectures or ())
        self._check_modules(opened.empty(AutoModelForCausalLM), setting, support, opened.source.base)

    def check_new(self, spec: NewLlamaSettings, setting: str, support: AdapterSupport) -> None:
        check_computed(self.tuning, support, f"{setting}.kind=ia3", (NEW_POLICY,))
        self._check_modules(empty_llama(spec), setting, support, f"the new {spec.setting}")

    def _check_modules(self, model: Any, setting: str, support: AdapterSupport, base: str) -> None:
        """Raises UserError when a target is none that can be scaled, or what they are by default is not known."""
        scaled = scaled_modules(model, self.tuning)
        if scaled is None:
            raise UserError(
                f"{setting}.kind=ia3: what keys, values and feed-forward are called in {base} is not known; name the "
                f"modules in {setting}.targets (outputs) and {setting}.feedforward (inputs)"
            )
        for name, given in (("targets", self.tuning.targets), ("feedforward", self.tuning.feedforward)):
            check_named_modules(model, given, base, support, f"{setting}.{name}", LINEAR, has_all_linear=False)
        outputs, inputs = (target_modules(model, names) for names in scaled)
        both = next((name for name in outputs if name in inputs), None)
        if both is not None:
            raise UserError(
                f"{setting}.targets and {setting}.feedforward both name {both} in {base}, of which the outputs or "
                f"the inputs are scaled: name it in one of them"
            )

    beside: ClassVar[Beside] = "ia3"

    def size(self, model: Any) -> AdapterSize:
        outputs, inputs = scaled_modules(model, self.tuning) or ((), ())
        num_factors = sum(num_outputs(one) for one in target_modules(model, outputs).values())
        return AdapterSize(num_factors + sum(num_inputs(one) for one in target_modules(model, inputs).values()))

    def policy(self, opened: OpenedPolicy, roles: tuple[ModelRole, ...], seed: int) -> "PolicyModel":
        from plumbob.models.tuning.roles import adapted_policy

        return adapted_policy(opened, self._config(opened), roles, seed)

    def _config(self, opened: OpenedPolicy) -> "PeftConfig":
        from peft import IA3Config

        # An adapter has a config of its own, on whatever model.
        model = None if opened.source.adapter is not None else opened.empty(AutoModelForCausalLM)
        outputs, inputs = (None if model is None else scaled_modules(model, self.tuning)) or ((), ())
        return IA3Config(
            target_modules=[*outputs, *inputs],
            feedforward_modules=list(inputs),
            task_type="CAUSAL_LM",
            base_model_name_or_path=opened.source.base,
        )


def scaled_modules(model: Any, tuning: Ia3Tuning) -> tuple[Sequence[str], Sequence[str]] | None:
    """Names of the modules whose outputs, and of those whose inputs are scaled; None where that is not known.

    Args:
        model: which may be one without weights.
    """
    if tuning.targets or tuning.feedforward:
        return tuning.targets, tuning.feedforward
    for outputs, inputs in KEYS_VALUES_FEEDFORWARD:
        if all(target_modules(model, [name]) for name in (*outputs, *inputs)):
            return outputs, inputs
    return None


@dataclass(frozen=True)
class VeraMethod:
    """Trains b and d of W + diag(b) B diag(d) A for each target W, with one random A and B (arXiv 2310.11454)."""

    tuning: VeraTuning

    def check(self, opened: OpenedPolicy, setting: str, roles: tuple[ModelRole, ...], support: AdapterSupport) -> None:
        check_architecture(opened, support)
        check_computed(self.tuning, support, f"{setting}.kind=vera", opened.config.architectures or ())
        if self.tuning.targets != ALL_LINEAR:
            self._check_modules(opened.empty(AutoModelForCausalLM), setting, support, opened.source.base)

    def check_new(self, spec: NewLlamaSettings, setting: str, support: AdapterSupport) -> None:
        check_computed(self.tuning, support, f"{setting}.kind=vera", (NEW_POLICY,))
        if self.tuning.targets != ALL_LINEAR:
            self._check_modules(empty_llama(spec), setting, support, f"the new {spec.setting}")

    def _check_modules(self, model: Any, setting: str, support: AdapterSupport, base: str) -> None:
        check_named_modules(model, self.tuning.targets, base, support, f"{setting}.targets", LINEAR)

    beside: ClassVar[Beside] = "vera"

    def size(self, model: Any) -> AdapterSize:
        targets = list(target_modules(model, self.tuning.targets).values())
        widest = max(map(num_inputs, targets), default=0) + max(map(num_outputs, targets), default=0)
        num_trained = sum(self.tuning.rank + num_outputs(one) for one in targets)
        return AdapterSize(num_trained, num_shared=self.tuning.rank * widest)

    def policy(self, opened: OpenedPolicy, roles: tuple[ModelRole, ...], seed: int) -> "PolicyModel":
        from peft import VeraConfig

        from plumbob.models.tuning.roles import adapted_policy

        tuning = self.tuning
        config = VeraConfig(
            r=tuning.rank,
            target_modules=tuning.targets if isinstance(tuning.targets, str) else list(tuning.targets),
            vera_dropout=tuning.dropout,
            d_initial=tuning.d_initial,
            projection_prng_key=seed,
            task_type="CAUSAL_LM",
            base_model_name_or_path=opened.source.base,
        )
        return adapted_policy(opened, config, roles, seed)
