"""AdaLoRA as a tuning method: PEFT's layers B diag(e) A beside linear ones, all with the same rank in the beginning."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from transformers import AutoModelForCausalLM

from plumbob.configs.settings.models import NewLlamaSettings
from plumbob.configs.settings.tuning.adapters import AdaLoraTuning
from plumbob.core.errors import UserError
from plumbob.models.adapter import ModelRole
from plumbob.models.from_scratch import empty_llama
from plumbob.models.loading import OpenedPolicy
from plumbob.models.sizes.adapter_size import AdapterSize
from plumbob.models.sizes.kept_activations import Beside
from plumbob.models.tuning.adapter_support import AdapterSupport, check_architecture
from plumbob.models.tuning.targets import (
    ALL_LINEAR,
    LINEAR,
    check_named_modules,
    num_inputs,
    num_outputs,
    target_modules,
)

if TYPE_CHECKING:
    from plumbob.models.policy import PolicyModel


@dataclass(frozen=True)
class AdaLoraMethod:
    """Trains A, B and the factors e of B diag(e) A for each target W, of which e begins at zero (arXiv 2303.10512)."""

    tuning: AdaLoraTuning

    def check(self, opened: OpenedPolicy, setting: str, roles: tuple[ModelRole, ...], support: AdapterSupport) -> None:
        check_architecture(opened, support)
        self._check_rank(setting, support)
        if self.tuning.targets != ALL_LINEAR:
            model, targets = opened.empty(AutoModelForCausalLM), self.tuning.targets
            check_named_modules(model, targets, opened.source.base, support, f"{setting}.targets", LINEAR)

    def check_new(self, spec: NewLlamaSettings, setting: str, support: AdapterSupport) -> None:
        self._check_rank(setting, support)
        if self.tuning.targets != ALL_LINEAR:
            base, targets = f"the new {spec.setting}", self.tuning.targets
            check_named_modules(empty_llama(spec), targets, base, support, f"{setting}.targets", LINEAR)

    def _check_rank(self, setting: str, support: AdapterSupport) -> None:
        """Raises UserError when the engine would not serve an adapter that has kept all ranks of a module."""
        if support.max_rank is not None and self.tuning.first_rank > support.max_rank:
            raise UserError(
                f"{setting}.kind=adalora begins with rank {self.tuning.first_rank}, which a module may keep: "
                f"{support.engine} serves LoRA up to rank {support.max_rank}; lower {setting}.initial_rank and "
                f"{setting}.rank, or {support.instead}"
            )

    beside: ClassVar[Beside] = "lora-layers"

    def size(self, model: Any) -> AdapterSize:
        """With two scores of each number, which stay beside them."""
        targets = target_modules(model, self.tuning.targets).values()
        num_trained = self.tuning.first_rank * sum(num_inputs(one) + num_outputs(one) + 1 for one in targets)
        return AdapterSize(num_trained, num_start=2 * num_trained)

    def policy(self, opened: OpenedPolicy, roles: tuple[ModelRole, ...], seed: int) -> "PolicyModel":
        from peft import AdaLoraConfig

        from plumbob.models.tuning.roles import adapted_policy

        tuning = self.tuning
        config = AdaLoraConfig(
            init_r=tuning.first_rank,
            target_r=tuning.rank,
            lora_alpha=tuning.alpha,
            lora_dropout=tuning.dropout,
            target_modules=tuning.targets if isinstance(tuning.targets, str) else list(tuning.targets),
            total_step=1,  # Of PEFT's own schedule, which is not used.
            task_type="CAUSAL_LM",
            base_model_name_or_path=opened.source.base,
        )
        return adapted_policy(opened, config, roles, seed)
