"""A reward model by LoRA: adapters on its encoder and its head whole, beside floats or 4 bits, written as one model.

PEFT is imported where a model is made: it takes seconds, and the driver only checks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from plumbob.configs.settings.models import ModelRef
from plumbob.configs.settings.tuning.encoders import EncoderLora, RewardEncoderSettings
from plumbob.core.errors import UserError
from plumbob.models.adapter import PolicyWeights
from plumbob.models.loading import open_model
from plumbob.models.quantization.forms import round_weights
from plumbob.models.quantization.quantised_layers import is_of_head, quantised_layers
from plumbob.models.weight_files import save_model
from plumbob.reward.reward_models.bert_model import RewardModel, new_reward_model

ADAPTER = "default"
TARGETS = "reward.tuning.targets"


def check_tuned(model: Any, settings: RewardEncoderSettings) -> None:
    """Raises UserError when a classifier, which may be one without weights, cannot be tuned as the settings say."""
    if isinstance(settings.tuning, EncoderLora):
        lora_targets(model, settings.tuning)
    quantization = settings.quantization
    if quantization is not None and not quantised_layers(model, quantization):
        raise UserError(
            f"reward.quantization.block_size={quantization.block_size}: no linear layer of {settings.model} has rows "
            f"of whole blocks of so many weights: give a smaller one, or leave reward.quantization out"
        )


def num_trained(model: Any, tuning: EncoderLora) -> int:
    """Parameters of the adapters and of the head, on a classifier that may be one without weights."""
    of_head = sum(each.numel() for name, each in model.named_parameters() if is_of_head(model, name))
    layers = lora_targets(model, tuning).values()
    return of_head + sum(tuning.rank * (layer.in_features + layer.out_features) for layer in layers)


def lora_targets(model: Any, tuning: EncoderLora) -> dict[str, nn.Linear]:
    """Name -> layer of the encoder that gets an adapter.

    Raises:
        UserError: one that is named is no linear layer of the encoder.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Linear and not is_of_head(model, name)
    }
    if tuning.targets == "all-linear":
        return layers
    for end in tuning.targets:
        if not any(_is_named(name, end) for name in layers):
            known = ", ".join(sorted({name.rpartition(".")[2] for name in layers}))
            raise UserError(f"{TARGETS}: {end} is no linear layer of the encoder; name the end of one of {known}")
    return {name: layer for name, layer in layers.items() if any(_is_named(name, end) for end in tuning.targets)}


def _is_named(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def put_lora(model: Any, targets: Sequence[str], tuning: EncoderLora) -> Any:
    """The model with adapters beside the targets, of which they and the head can be trained."""
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    of_head = [name for name, _ in model.named_parameters() if is_of_head(model, name)]
    config = LoraConfig(
        r=tuning.rank, lora_alpha=tuning.alpha, lora_dropout=tuning.dropout, target_modules=list(targets)
    )
    adapted = LoraModel(model, config, ADAPTER)
    for name in of_head:
        model.get_parameter(name).requires_grad_(True)
    return adapted


@dataclass(frozen=True)
class TunedRewardModel:
    """How a reward model is made, trained and written.

    Attributes:
        encoder: what it begins as, with how its weights are kept.
        prefix: of its parameters' names within the learner's module.
    """

    encoder: ModelRef
    tuning: EncoderLora
    prefix: str

    def open(self) -> RewardModel:
        """With new adapters, and a new head where it has none: drawn from torch's global random numbers. UserError as
        `new_reward_model`."""
        new = new_reward_model(self.encoder, self.encoder.quantization)
        return RewardModel(put_lora(new.model, list(self._targets()), self.tuning), new.tokenizer)

    def export(self, parameters: Mapping[str, Tensor], folder: Path) -> None:
        """Write a plain model: the encoder's weights, as it computed with them, with B A added to its targets, and the
        trained head."""
        with torch.random.fork_rng(devices=[]):
            new = new_reward_model(self.encoder)
        if self.encoder.quantization is not None:
            round_weights(new.model, self.encoder.quantization)
        adapted = put_lora(new.model, list(self._targets()), self.tuning)
        own = {name.removeprefix(self.prefix): tensor for name, tensor in parameters.items()}
        found = adapted.load_state_dict(own, strict=False)
        untrained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad} - own.keys()
        if found.unexpected_keys or untrained:
            raise RuntimeError(f"the encoder has no place for {found.unexpected_keys}, or lacks {sorted(untrained)}")
        save_model(adapted.merge_and_unload(), new.tokenizer, folder)

    def policy_weights(self, parameters: Mapping[str, Tensor], version: int) -> PolicyWeights:
        raise TypeError("a reward model is no policy")

    def _targets(self) -> dict[str, nn.Linear]:
        """Found in floats: layers of 4 bits are of another type."""
        model = open_model(self.encoder).empty(AutoModelForSequenceClassification)
        return lora_targets(model, self.tuning)
