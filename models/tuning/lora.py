"""Low-rank adapters as a tuning method: what they may be put on, and PEFT's config of new ones.

PEFT is imported where a model is made: it takes seconds, and the driver only checks.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plumbob.configs.settings.models import NewLlamaSettings
from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.models.adapter import ModelRole
from plumbob.models.loading import OpenedPolicy
from plumbob.models.resolution import served_rank
from plumbob.models.tuning.adapter_fields import check_adapter
from plumbob.models.tuning.adapter_support import (
    AdapterSupport,
    check_architecture,
    check_largest_rank,
    check_rank,
)
from plumbob.models.tuning.targets import ALL_LINEAR, LINEAR, check_new_targets, check_targets

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
        check_rank(self.tuning, support, setting)
        check_largest_rank(opened, support)
        check_targets(opened, self.tuning, support, f"{setting}.targets")

    def check_new(self, spec: NewLlamaSettings, setting: str, support: AdapterSupport) -> None:
        check_rank(self.tuning, support, setting)
        check_new_targets(spec, self.tuning, support, f"{setting}.targets")

    def num_trained(self, model: Any, role: ModelRole) -> int:
        return num_adapter_parameters(model, self.tuning)

    def served_rank(self, opened: OpenedPolicy) -> int:
        return served_rank(opened.source, self.tuning.rank)

    def policy(self, opened: OpenedPolicy, roles: tuple[ModelRole, ...], seed: int) -> "PolicyModel":
        from plumbob.models.tuning.roles import adapted_policy

        return adapted_policy(opened, lora_config(self.tuning, opened.source.base), roles, seed)


def num_adapter_parameters(model: Any, tuning: LoraTuning) -> int:
    """Of one new adapter: A [rank, in] and B [out, rank] for each target.

    Args:
        model: which may be one without weights.
    """
    head = model.get_output_embeddings()
    sides = 0
    for name, module in model.named_modules():
        if tuning.targets == ALL_LINEAR:
            is_target = isinstance(module, LINEAR) and module is not head
        else:
            is_target = any(f".{name}".endswith(f".{target}") for target in tuning.targets)
        sides += sum(module.weight.shape) if is_target else 0
    return tuning.rank * sides


def lora_config(tuning: LoraTuning, base: str) -> "LoraConfig":
    from peft import LoraConfig

    targets = tuning.targets if isinstance(tuning.targets, str) else list(tuning.targets)
    return LoraConfig(
        r=tuning.rank,
        lora_alpha=tuning.alpha,
        lora_dropout=tuning.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
    )
