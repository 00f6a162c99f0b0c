"""Soft prompts as tuning methods: prompt tuning, also of several tasks, p-tuning and prefix tuning.

policy.model --frozen--> base, which reads one of
    policy     begun as its settings say, or as the adapter that was given; trained
    reference  a copy of that beginning, frozen: the base alone is another policy, from the first token on
    critic     a copy of that beginning, trained, with a linear head
"""

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, assert_never

import torch
from transformers import AutoModelForCausalLM

from plumbob.configs.settings.models import NewLlamaSettings
from plumbob.configs.settings.tuning.any_tuning import AnyPromptTuning
from plumbob.configs.settings.tuning.soft_prompts import (
    MultitaskPromptTuning,
    PrefixTuning,
    PromptTuning,
    PTuning,
)
from plumbob.core.errors import UserError
from plumbob.models.adapter import ModelRole
from plumbob.models.forward.soft_prompts import soft_prompts_of
from plumbob.models.loading import OpenedPolicy
from plumbob.models.tuning.adapter_fields import check_adapter
from plumbob.models.tuning.adapter_support import AdapterSupport, check_architecture
from plumbob.models.tuning.targets import check_targets

if TYPE_CHECKING:
    from peft import PeftConfig

    from plumbob.models.policy import PolicyModel

READ_BY_PROMPTS = ("input_ids", "inputs_embeds", "attention_mask", "position_ids")
READ_BY_PREFIXES = ("input_ids", "attention_mask", "position_ids", "past_key_values")
"""What the layers of a model must take, to be given a soft prompt."""


@dataclass(frozen=True)
class PromptMethod:
    """Trains vectors that the frozen base reads before every text."""

    tuning: AnyPromptTuning

    def check(self, opened: OpenedPolicy, setting: str, roles: tuple[ModelRole, ...], support: AdapterSupport) -> None:
        if opened.source.adapter is not None:  # It is trained as what it is.
            check_architecture(opened, support)
            check_adapter(opened, roles, support)
            check_targets(opened, (), support)
            return
        self._check_served(setting, support)
        if opened.num_positions < 1:
            raise UserError(
                f"{setting}.num_virtual_tokens={self.tuning.num_virtual_tokens} leaves no position of "
                f"{opened.source.base} for a text: lower it"
            )
        self._check_layers(opened.empty(AutoModelForCausalLM), setting, opened.source.base)
        if isinstance(self.tuning, PromptTuning) and self.tuning.init_text is not None:
            text_ids(opened.tokenizer, self.tuning.init_text, setting)

    def check_new(self, spec: NewLlamaSettings, setting: str, support: AdapterSupport) -> None:
        self._check_served(setting, support)
        if spec.max_positions <= self.tuning.num_virtual_tokens:
            raise UserError(
                f"{setting}.num_virtual_tokens={self.tuning.num_virtual_tokens} leaves no position of the new "
                f"{spec.setting} for a text: lower it"
            )

    def _check_served(self, setting: str, support: AdapterSupport) -> None:
        if support.engine == "vLLM":
            raise UserError(
                f"{setting}.kind={self.tuning.kind}: vLLM reads no soft prompts; set "
                f"rollout.engine.kind=transformers, or train LoRA ({setting}.kind=lora)"
            )

    def _check_layers(self, model: Any, setting: str, base: str) -> None:
        """Raises UserError when a family's layers take no soft prompt of this kind."""
        taken = inspect.signature(model.base_model.forward).parameters
        is_prefix = isinstance(self.tuning, PrefixTuning)
        absent = [name for name in (READ_BY_PREFIXES if is_prefix else READ_BY_PROMPTS) if name not in taken]
        if absent:
            raise UserError(
                f"{setting}.kind={self.tuning.kind}: the layers of {type(model).__name__} ({base}) take no "
                f"{', '.join(absent)}, by which a soft prompt is put before a text; set {setting}.kind=lora"
            )
        if is_prefix and not _keeps_keys_and_values(model.config.get_text_config()):
            raise UserError(
                f"{setting}.kind={self.tuning.kind}: not every layer of {type(model).__name__} ({base}) keeps keys and "
                f"values of one width, which a prefix is made of; set {setting}.kind=prompt-tuning"
            )

    def policy(self, opened: OpenedPolicy, roles: tuple[ModelRole, ...], seed: int) -> "PolicyModel":
        from plumbob.models.tuning.roles import adapted_policy

        config = self._config(opened)
        return adapted_policy(opened, config, roles, seed, lambda model, names: self._begin(opened, model))

    def _config(self, opened: OpenedPolicy) -> "PeftConfig":
        from peft import MultitaskPromptTuningConfig, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig

        tuning = self.tuning
        common: dict[str, Any] = {
            "num_virtual_tokens": tuning.num_virtual_tokens,
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": opened.source.base,
        }
        match tuning:
            case PromptTuning():
                return PromptTuningConfig(**common)
            case MultitaskPromptTuning():
                return MultitaskPromptTuningConfig(num_tasks=len(tuning.tasks), num_ranks=tuning.rank, **common)
            case PTuning():
                encoder = tuning.encoder.upper()
                return PromptEncoderConfig(
                    encoder_reparameterization_type=encoder, encoder_hidden_size=tuning.hidden_size, **common
                )
            case PrefixTuning():
                return PrefixTuningConfig(
                    prefix_projection=tuning.projection,
                    encoder_hidden_size=tuning.hidden_size,
                    init_weights="zero" if tuning.init == "zero" else None,
                    **common,
                )
            case _:
                assert_never(tuning)

    def _begin(self, opened: OpenedPolicy, model: Any) -> None:
        """Of prompt tuning: the policy's vectors begin at the embeddings of tokens, and those of all tasks alike."""
        from plumbob.models.tuning.prompt_encoders import begin_tasks

        tuning, prompts = self.tuning, soft_prompts_of(model)
        assert prompts is not None, "the model has no soft prompts"
        if not isinstance(tuning, PromptTuning | MultitaskPromptTuning):
            return
        encoder: Any = prompts.encoders["policy"]
        if isinstance(tuning, MultitaskPromptTuning):
            prompts.task_names = tuning.tasks
            begin_tasks(encoder)
        elif tuning.init == "gaussian":
            return
        embeddings, num = model.get_input_embeddings(), tuning.num_virtual_tokens
        text = tuning.init_text if isinstance(tuning, PromptTuning) else None
        if text is None:
            ids = torch.randint(0, opened.config.get_text_config().vocab_size, (num,))
        else:
            ids = torch.tensor((text_ids(opened.tokenizer, text, "policy.tuning") * num)[:num])
        with torch.no_grad():
            encoder.embedding.weight.copy_(embeddings(ids.to(embeddings.weight.device)))


def _keeps_keys_and_values(config: Any) -> bool:
    """Whether all layers do, and alike: not those with another state, or that keep a projection of them."""
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    return not (kinds or config.to_dict().get("per_layer_config") or getattr(config, "kv_lora_rank", None))


def text_ids(tokenizer: Any, text: str, setting: str) -> list[int]:
    """Of the text that vectors begin at. Raises UserError when it has no tokens that the model knows."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    number = getattr(tokenizer, "num_embeddings", None)
    if not ids or (number is not None and max(ids) >= number):
        raise UserError(f"{setting}.init_text has no tokens, or some that the model has no embeddings of: change it")
    return ids
