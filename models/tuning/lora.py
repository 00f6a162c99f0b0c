"""Low-rank adapters as a tuning method: what they may be put on, and PEFT's config of new ones.

PEFT is imported where a model is made: it takes seconds, and the driver only checks.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers import AutoModelForCausalLM

from plumbob.configs.settings.models import NewLlamaSettings
from plumbob.configs.settings.tuning.adapters import FROM_WEIGHTS, LoraTuning
from plumbob.core.errors import UserError
from plumbob.models.adapter import ModelRole
from plumbob.models.from_scratch import NEW_POLICY, empty_llama
from plumbob.models.loading import OpenedPolicy
from plumbob.models.tuning.adapter_fields import check_adapter
from plumbob.models.tuning.adapter_support import (
    AdapterSupport,
    check_architecture,
    check_computed,
    check_largest_rank,
    check_rank,
)
from plumbob.models.tuning.targets import (
    LINEAR,
    check_new_targets,
    check_targets,
    is_named,
    target_modules,
)

if TYPE_CHECKING:
    from peft import LoraConfig

    from plumbob.models.policy import PolicyModel


@dataclass(frozen=True)
class LoraMethod:
    """Trains B A beside each target W, of which nothing is changed (Hu et al. 2021, arXiv 2106.09685)."""

    tuning: LoraTuning

    def check(self, opened: OpenedPolicy, setting: str, roles: tuple[ModelRole, ...], support: AdapterSupport) -> None:
        check_architecture(opened, support)
        check_adapter(opened, roles, support)
        check_largest_rank(opened, support)
        if opened.source.adapter is None:
            check_computed(self.tuning, support, f"{setting}.use_dora=true", opened.config.architectures or ())
        check_rank(self.tuning, support, setting)
        check_targets(opened, self.tuning.targets, support, f"{setting}.targets")
        if opened.source.adapter is None and self._is_of_single_modules:
            self._check_modules(opened.empty(AutoModelForCausalLM), setting, opened.source.base)

    def check_new(self, spec: NewLlamaSettings, setting: str, support: AdapterSupport) -> None:
        check_computed(self.tuning, support, f"{setting}.use_dora=true", (NEW_POLICY,))
        check_rank(self.tuning, support, setting)
        check_new_targets(spec, self.tuning.targets, support, f"{setting}.targets")
        if self._is_of_single_modules:
            self._check_modules(empty_llama(spec), setting, f"the new {spec.setting}")

    @property
    def _is_of_single_modules(self) -> bool:
        tuning = self.tuning
        return bool(tuning.rank_pattern or tuning.alpha_pattern or tuning.init in FROM_WEIGHTS)

    def _check_modules(self, model: Any, setting: str, base: str) -> None:
        """Raises UserError when a pattern names no target, or a target has no weight to begin from."""
        targets = target_modules(model, self.tuning.targets)
        for name in ("rank_pattern", "alpha_pattern"):
            for end in getattr(self.tuning, name):
                if not any(is_named(module, end) for module in targets):
                    known = ", ".join(sorted({module.rpartition(".")[2] for module in targets}))
                    raise UserError(f"{setting}.{name}: {end} is no target in {base}; name the end of one of {known}")
        if self.tuning.init in FROM_WEIGHTS:
            other = next((name for name, module in targets.items() if not isinstance(module, LINEAR)), None)
            if other is not None:
                raise UserError(
                    f"{setting}.init={self.tuning.init} begins with parts of linear layers' weights, and {other} of "
                    f"{setting}.targets is none in {base}; take it out, or set {setting}.init=default"
                )

    def policy(self, opened: OpenedPolicy, roles: tuple[ModelRole, ...], seed: int) -> "PolicyModel":
        from plumbob.models.tuning.roles import adapted_policy
        from plumbob.models.tuning.starts.lora_starts import begin_from_weights

        config = lora_config(self.tuning, opened.source.base)
        return adapted_policy(
            opened, config, roles, seed, lambda model, names: begin_from_weights(model, names, self.tuning.init)
        )


def lora_config(tuning: LoraTuning, base: str) -> "LoraConfig":
    from peft import LoraConfig

    targets = tuning.targets if isinstance(tuning.targets, str) else list(tuning.targets)
    init = tuning.init if tuning.init in ("gaussian", "orthogonal") else True
    return LoraConfig(
        r=tuning.rank,
        lora_alpha=tuning.alpha,
        lora_dropout=tuning.dropout,
        target_modules=targets,
        use_rslora=tuning.use_rslora,
        use_dora=tuning.use_dora,
        rank_pattern=dict(tuning.rank_pattern),
        alpha_pattern=dict(tuning.alpha_pattern),
        init_lora_weights=init,
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
    )
