"""Reward models, encoders or decoders: sequence classifiers with one output, each with its own tokenizer."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from plumbob.configs.settings.models import ModelRef
from plumbob.configs.settings.rewards import REWARDS_TODAY, ModelReward
from plumbob.configs.settings.tuning.quantization import Nf4Quantization
from plumbob.core.errors import UserError
from plumbob.models.files.tokenizer_files import open_tokenizer
from plumbob.models.loading import OpenedModel, load_weights, num_reserved_positions, open_model
from plumbob.models.quantization.forms import loading_options
from plumbob.models.resolution import resolve_model, resolve_package_folder
from plumbob.reward.reward_models.calibration import load_calibration


@dataclass(frozen=True)
class RewardModel:
    """A transformers sequence-classification model with one output, in float32, and its tokenizer."""

    model: Any
    tokenizer: Any


def load_reward_model(ref: ModelRef) -> RewardModel:
    """A trained reward model, in evaluation mode.

    Raises:
        UserError: it cannot be read, is no sequence classifier, has another number of outputs than one, or lacks its
            head (which would silently be made of random numbers).
    """
    opened = _open_trained(ref)
    _check_classifier(opened)
    model = load_weights(AutoModelForSequenceClassification, ref, opened.source.base, dtype=torch.float32).eval()
    # By its own config a decoder scores the last token that is no padding: the tokenizer's may be what ends a text.
    return RewardModel(model, open_reward_tokenizer(ref)) if is_decoder(opened.config) else _with_tokenizer(model, ref)


def check_reward_model(reward: ModelReward) -> None:
    """What can be told of a trained reward model before it is loaded.

    Raises:
        UserError: it is no sequence classifier with one output, its weights are not whole, it has no tokenizer, it has
            no positions for `max_tokens`, or it is to be calibrated and has no calibration.
    """
    ref = reward.model
    opened = _open_trained(ref)
    _check_classifier(opened)
    model = opened.empty(AutoModelForSequenceClassification)
    tokenizer = open_reward_tokenizer(ref) if is_decoder(opened.config) else _load_tokenizer(ref)
    check_length(RewardModel(model, tokenizer), ref, reward.max_tokens)
    if reward.is_calibrated:
        load_calibration(ref)


def _open_trained(ref: ModelRef) -> OpenedModel:
    """A model to score with: where the setting names no model at all, the message says what a reward can be."""
    try:
        return _open(ref)
    except UserError as error:
        if (Path(resolve_package_folder(ref.name, ref.setting)).expanduser() / "config.json").exists():
            raise
        raise UserError(f"{error}; {REWARDS_TODAY}") from error


def _open(ref: ModelRef) -> OpenedModel:
    source = resolve_model(ref)
    if source.adapter is not None:
        raise UserError(
            f"{ref}: is an adapter, and a reward model is a full model; merge it into its base first (peft's "
            f"merge_and_unload)"
        )
    return open_model(ref)


def _check_classifier(opened: OpenedModel) -> None:
    config, ref = opened.config, opened.ref
    architectures = config.architectures or [config.model_type]
    if not any(architecture.endswith("ForSequenceClassification") for architecture in architectures):
        raise UserError(
            f"{ref}: {', '.join(architectures)} is no reward model; expected a ...ForSequenceClassification "
            f"with one output: train one with a reward run"
        )
    if config.num_labels != 1:
        raise UserError(
            f"{ref}: the classifier has {config.num_labels} outputs, a reward model has one: "
            f"train one with a reward run"
        )


def check_pairs_are_read(opened: OpenedModel, named: str) -> None:
    """Raises UserError for a decoder, such as Llama: it reads one text up to its last token, not a pair of texts.

    Args:
        named: what it is, for people.
    """
    if is_decoder(opened.config):
        raise UserError(
            f"{opened.ref}: {named} is a decoder, which reads a prompt and its response as one text and scores its "
            f"last token; reward models are trained here from encoders, which read them as a pair: give a BERT or a "
            f"variant of it"
        )


def is_decoder(config: Any) -> bool:
    """Whether a model of that config, such as Llama, reads one text up to its last token, and no pair of texts."""
    kind = config.model_type
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def new_reward_model(encoder: ModelRef, quantization: Nf4Quantization | None = None) -> RewardModel:
    """An encoder with a new head of one output, to be trained; a reward model keeps the head that it has.

    The new head is drawn from torch's global random numbers: seed them first.

    Args:
        quantization: how the weights of the encoder's linear layers are kept; None keeps them as they are.

    Raises:
        UserError: it cannot be read, or cannot carry a classification head.
    """
    model = load_weights(
        AutoModelForSequenceClassification,
        encoder,
        _open(encoder).source.base,
        makes_head=True,
        num_labels=1,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        **loading_options(quantization, torch.float32),
    )
    return _with_tokenizer(model, encoder)


def switch_dropout_off(model: nn.Module) -> None:
    """Let a model drop nothing out in training either, but for LoRA's own dropout.

    Its config, which is written with the model, keeps the rates: whoever trains on finds them.
    """
    for name, module in model.named_modules():
        if "lora_dropout" in name:
            continue
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for rate in [name for name, value in vars(module).items() if "drop" in name and isinstance(value, float)]:
            setattr(module, rate, 0.0)


def rewards_of(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """The raw rewards of padded inputs, float32 [B]."""
    rewards: Tensor = model(**inputs).logits
    return rewards.squeeze(-1).float()


def check_length(reward_model: RewardModel, ref: ModelRef, max_tokens: int) -> None:
    """Raises UserError when the model has no positions for `max_tokens`, or those leave no room for text."""
    setting = f"{ref.setting.rpartition('.')[0]}.max_tokens"
    limit = getattr(reward_model.model.config, "max_position_embeddings", None)
    if limit is not None:
        limit -= num_reserved_positions(reward_model.model)
        if max_tokens > limit:
            raise UserError(f"{setting}={max_tokens}: {ref} takes at most {limit} tokens; set {setting}={limit}")
    num_special = reward_model.tokenizer.num_special_tokens_to_add(pair=True)
    if max_tokens <= num_special:
        raise UserError(f"{setting}={max_tokens}: {num_special} of them are special tokens; give more")


def _with_tokenizer(model: Any, ref: ModelRef) -> RewardModel:
    tokenizer = _load_tokenizer(ref)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return RewardModel(model, tokenizer)


def open_reward_tokenizer(ref: ModelRef) -> Any:
    """The tokenizer in a reward model's folder. UserError where there is none."""
    return open_tokenizer(resolve_package_folder(ref.name, ref.setting), ref.setting)


def _load_tokenizer(ref: ModelRef) -> Any:
    tokenizer = open_reward_tokenizer(ref)
    if not tokenizer.is_fast:
        raise UserError(f"{ref}: the tokenizer has no tokenizer.json, which a reward model needs; save one there")
    if tokenizer.pad_token_id is None:
        raise UserError(
            f'{ref}: the tokenizer has no pad token; set one with tokenizer.pad_token = "..." and '
            f"tokenizer.save_pretrained(FOLDER)"
        )
    return tokenizer
