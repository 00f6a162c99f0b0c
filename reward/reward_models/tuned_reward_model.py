"""A reward model by LoRA: adapters on its encoder and its head whole, beside floats or 4 bits, written as one model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from plumbob.configs.settings.models import ModelRef, RewardEncoderSettings
from plumbob.configs.settings.tuning.encoders import EncoderLora
from plumbob.core.errors import UserError
from plumbob.models.adapter import PolicyWeights
from plumbob.models.files.weight_files import save_model
from plumbob.models.loading import open_model
from plumbob.models.quantization.forms import round_weights
from plumbob.models.quantization.quantised_layers import quantised_layers
from plumbob.models.tuning.classifiers import lora_targets, put_lora
from plumbob.reward.reward_models.bert_model import RewardModel, new_reward_model


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

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

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
