"""Low-rank adapters as a tuning method: what they may be put on, and PEFT's config of new ones.

PEFT is imported where a model is made: it takes seconds, and the driver only checks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers import AutoModelForCausalLM

from plumbob.configs.settings.models import NewLlamaSettings
from plumbob.configs.settings.tuning.adapters import FROM_WEIGHTS, LoraTuning
from plumbob.core.errors import UserError
from plumbob.models.adapter import ModelRole
from plumbob.models.from_scratch import NEW_POLICY, empty_llama
from plumbob.models.loading import OpenedPolicy
from plumbob.models.sizes.adapter_size import AdapterSize
from plumbob.models.sizes.kept_activations import Beside
from plumbob.models.tuning.adapter_fields import (
    ANEW,
    AS_LORA,
    BY_PEFT,
    CARRIED,
    MERGED_OR_PEFT,
    NOBODY,
    OF_ANY,
    REFUSED,
    AdapterField,
    PeftKind,
)
from plumbob.models.tuning.adapter_support import (
    AdapterSupport,
    check_architecture,
    check_computed,
    check_rank,
)
from plumbob.models.tuning.targets import (
    LINEAR,
    check_new_targets,
    check_targets,
    is_named,
    num_inputs,
    num_outputs,
    target_modules,
)

if TYPE_CHECKING:
    from peft import LoraConfig

    from plumbob.models.policy import PolicyModel


_FIELDS: Mapping[str, AdapterField] = {
    **OF_ANY,
    "peft_type": CARRIED,
    # B A x on the targets, with the scale of each.
    "r": CARRIED,
    "lora_alpha": CARRIED,
    "use_rslora": CARRIED,
    "rank_pattern": CARRIED,
    "alpha_pattern": CARRIED,
    # Switched off where there is a reference.
    "lora_dropout": CARRIED,
    # Beside B A x.
    "use_dora": MERGED_OR_PEFT,
    "lora_bias": BY_PEFT,
    "use_bdlora": BY_PEFT,
    "target_parameters": BY_PEFT,
    "trainable_token_indices": BY_PEFT,
    # One tensor under two names, of which an adapter's file holds one.
    "ensure_weight_tying": REFUSED,
    # The saved weights count, however they began: but those that began as parts of the base's own weights took these
    # out of it, and putting one on takes them out again, each time. What "lora_ga" took out nobody can find again.
    "init_lora_weights": AdapterField(NOBODY, (True, "gaussian", "eva", "orthogonal"), AS_LORA),
    "loftq_config": CARRIED,
    "eva_config": CARRIED,
    "corda_config": CARRIED,
    "lora_ga_config": CARRIED,
    # Other forwards than B A x, or other gradients.
    "kasa_config": REFUSED,
    "monteclora_config": REFUSED,
    "velora_config": REFUSED,
    "use_qalora": REFUSED,
    "qalora_group_size": CARRIED,
    "arrow_config": AdapterField(NOBODY, instead=ANEW),
    "alora_invocation_tokens": AdapterField(NOBODY, instead=ANEW),
    "layer_replication": AdapterField(
        NOBODY,
        instead="repeat the layers in the base itself, save that, and train a LoRA on it without layer_replication",
    ),
    "megatron_config": AdapterField(NOBODY, instead=ANEW),
    # A name that counts beside `megatron_config` alone.
    "megatron_core": CARRIED,
    # Never saved.
    "runtime_config": CARRIED,
}

LORA = PeftKind(_FIELDS, lambda config: "dora" if config.get("use_dora") else "lora", ".lora_")


@dataclass(frozen=True)
class LoraMethod:
    """Trains B A beside each target W, of which nothing is changed (Hu et al. 2021, arXiv 2106.09685)."""

    tuning: LoraTuning

    def check(self, opened: OpenedPolicy, setting: str, roles: tuple[ModelRole, ...], support: AdapterSupport) -> None:
        check_architecture(opened, support)
        check_computed(self.tuning, support, f"{setting}.use_dora=true", opened.config.architectures or ())
        check_rank(self.tuning, support, setting)
        check_targets(opened, self.tuning.targets, support, f"{setting}.targets")
        if self._is_of_single_modules:
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

    @property
    def beside(self) -> Beside:
        return "dora" if self.tuning.use_dora else "lora"

    def size(self, model: Any) -> AdapterSize:
        """A [rank, in] and B [out, rank] for each target, and with DoRA a length of each output."""
        tuning, halves, lengths = self.tuning, 0, 0
        for name, module in target_modules(model, tuning.targets).items():
            rank = next((rank for end, rank in tuning.rank_pattern.items() if is_named(name, end)), tuning.rank)
            halves += rank * (num_inputs(module) + num_outputs(module))
            lengths += num_outputs(module) if tuning.use_dora else 0
        return AdapterSize(halves + lengths, num_start=halves if tuning.init in FROM_WEIGHTS else 0)

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
