"""Methods that train vectors alone: (IA)³ and VeRA, on the linear layers that are named."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers import AutoModelForCausalLM

from plumbob.configs.settings.models import NewLlamaSettings
from plumbob.configs.settings.tuning.adapters import Ia3Tuning, VeraTuning
from plumbob.core.errors import UserError
from plumbob.models.adapter import ModelRole
from plumbob.models.from_scratch import NEW_POLICY, empty_llama
from plumbob.models.loading import OpenedPolicy
from plumbob.models.tuning.adapter_fields import check_adapter
from plumbob.models.tuning.adapter_support import AdapterSupport, check_architecture, check_computed
from plumbob.models.tuning.targets import (
    ALL_LINEAR,
    LINEAR,
    check_named_modules,
    check_targets,
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


def _is_checked_adapter(
    opened: OpenedPolicy, tuning: Ia3Tuning | VeraTuning, roles: tuple[ModelRole, ...], support: AdapterSupport
) -> bool:
    """Whether the model is an adapter, which is then trained as what it is. UserError where it, or its base, cannot."""
    check_architecture(opened, support)
    check_adapter(opened, roles, support)
    if opened.source.adapter is None:
        return False
    check_targets(opened, tuning.targets, support)
    return True


@dataclass(frozen=True)
class Ia3Method:
    """Trains a factor of each output, or of each input, of its targets (arXiv 2205.05638). All begin at 1."""

    tuning: Ia3Tuning

    def check(self, opened: OpenedPolicy, setting: str, roles: tuple[ModelRole, ...], support: AdapterSupport) -> None:
        if _is_checked_adapter(opened, self.tuning, roles, support):
            return
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
        if _is_checked_adapter(opened, self.tuning, roles, support):
            return
        check_computed(self.tuning, support, f"{setting}.kind=vera", opened.config.architectures or ())
        if self.tuning.targets != ALL_LINEAR:
            self._check_modules(opened.empty(AutoModelForCausalLM), setting, support, opened.source.base)

    def check_new(self, spec: NewLlamaSettings, setting: str, support: AdapterSupport) -> None:
        check_computed(self.tuning, support, f"{setting}.kind=vera", (NEW_POLICY,))
        if self.tuning.targets != ALL_LINEAR:
            self._check_modules(empty_llama(spec), setting, support, f"the new {spec.setting}")

    def _check_modules(self, model: Any, setting: str, support: AdapterSupport, base: str) -> None:
        check_named_modules(model, self.tuning.targets, base, support, f"{setting}.targets", LINEAR)

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
