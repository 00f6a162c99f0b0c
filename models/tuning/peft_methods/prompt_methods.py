"""Soft prompts as tuning methods: prompt tuning, also of several tasks, p-tuning and prefix tuning.

policy.model --frozen--> base, which reads one of
    policy     begun as its settings say, or as the adapter that was given; trained
    reference  a copy of that beginning, frozen: the base alone is another policy, from the first token on
    critic     a copy of that beginning, trained, with a linear head
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, assert_never

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
from plumbob.models.sizes.adapter_size import AdapterSize
from plumbob.models.sizes.config_sizes import ModelSizes, sizes_of
from plumbob.models.sizes.kept_activations import Beside
from plumbob.models.tuning.adapter_fields import CARRIED, NOBODY, OF_ANY, WITH_PEFT, AdapterField, PeftKind
from plumbob.models.tuning.adapter_support import AdapterSupport

if TYPE_CHECKING:
    from peft import PeftConfig

    from plumbob.models.policy import PolicyModel

READ_BY_PROMPTS = ("input_ids", "inputs_embeds", "attention_mask", "position_ids")
READ_BY_PREFIXES = ("input_ids", "attention_mask", "position_ids", "past_key_values")
"""What the layers of a model must take, to be given a soft prompt."""


_FIELDS: Mapping[str, AdapterField] = {
    **{name: field for name, field in OF_ANY.items() if name not in ("modules_to_save", "bias")},
    "peft_type": AdapterField(WITH_PEFT, instead="train LoRA instead, which every sampler computes"),
    "modules_to_save": AdapterField(NOBODY, instead="train the soft prompt again without it"),
    "num_virtual_tokens": CARRIED,
    "token_dim": CARRIED,
    "num_attention_heads": CARRIED,
    "num_layers": CARRIED,
    "num_transformer_submodules": AdapterField(NOBODY, (1,), "give one that was trained as a language model's"),
    # Where the vectors began, and what made them: the file has the vectors.
    "prompt_tuning_init": CARRIED,
    "prompt_tuning_init_text": CARRIED,
    "tokenizer_name_or_path": CARRIED,
    "tokenizer_kwargs": CARRIED,
    "encoder_reparameterization_type": CARRIED,
    "encoder_hidden_size": CARRIED,
    "encoder_num_layers": CARRIED,
    "encoder_dropout": CARRIED,
    "prefix_projection": CARRIED,
    "init_weights": CARRIED,
}

SOFT_PROMPT = PeftKind(_FIELDS, lambda config: "prompts")


@dataclass(frozen=True)
class PromptMethod:
    """Trains vectors that the frozen base reads before every text."""

    tuning: AnyPromptTuning

    def check(self, opened: OpenedPolicy, setting: str, roles: tuple[ModelRole, ...], support: AdapterSupport) -> None:
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

    beside: ClassVar[Beside] = "prompts"

    def size(self, model: Any) -> AdapterSize:
        tuning, sizes = self.tuning, sizes_of(model)
        tokens, width = tuning.num_virtual_tokens, sizes.hidden_size
        match tuning:
            case PromptTuning():
                return AdapterSize(tokens * width)
            case MultitaskPromptTuning():
                return AdapterSize(tokens * width + len(tuning.tasks) * tuning.rank * (tokens + width))
            case PTuning():
                return AdapterSize(_of_prompt_encoder(tuning, width))
            case PrefixTuning():
                return AdapterSize(_of_prefix(tuning, sizes))
            case _:
                assert_never(tuning)

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


def _of_prompt_encoder(tuning: PTuning, width: int) -> int:
    """The vectors, and a network on them of which only they are kept in the end."""
    hidden = tuning.hidden_size or width
    vectors = tuning.num_virtual_tokens * width
    if tuning.encoder == "mlp":
        return vectors + _layer(width, hidden) + _layer(hidden, hidden) + _layer(hidden, width)
    # Each layer of an LSTM has four gates a direction, with two biases each; the second layer reads both directions.
    lstm = sum(2 * 4 * hidden * (inputs + hidden + 2) for inputs in (width, 2 * hidden))
    return vectors + lstm + _layer(2 * hidden, 2 * hidden) + _layer(2 * hidden, width)


def _of_prefix(tuning: PrefixTuning, sizes: ModelSizes) -> int:
    """Keys and values of each layer, or what they are made by."""
    outputs = 2 * sizes.num_layers * sizes.kv_size
    if not tuning.projection:
        return tuning.num_virtual_tokens * outputs
    hidden = tuning.hidden_size or sizes.kv_size
    return tuning.num_virtual_tokens * sizes.kv_size + _layer(sizes.kv_size, hidden) + _layer(hidden, outputs)


def _layer(inputs: int, outputs: int) -> int:
    """A linear one, with its bias."""
    return (inputs + 1) * outputs
