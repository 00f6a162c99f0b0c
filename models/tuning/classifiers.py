"""LoRA on a model with a classification head: adapters beside its linear layers, and the head trained whole.

PEFT is imported where adapters are put on: it takes seconds, and the driver only checks.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn

from plumbob.configs.settings.tuning.encoders import EncoderLora
from plumbob.core.errors import UserError
from plumbob.models.quantization.quantised_layers import is_of_head
from plumbob.models.tuning.targets import is_named

TARGETS = "reward.tuning.targets"
ADAPTER = "default"


def lora_targets(model: Any, tuning: EncoderLora) -> dict[str, nn.Linear]:
    """Name -> layer below the head that gets an adapter; the model may be one without weights.

    Raises:
        UserError: one that is named is no linear layer there.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Linear and not is_of_head(model, name)
    }
    if not layers:
        raise UserError("reward.tuning.kind=lora: the encoder has no linear layers below its head; set kind=full")
    if tuning.targets == "all-linear":
        return layers
    for end in tuning.targets:
        if not any(is_named(name, end) for name in layers):
            known = ", ".join(sorted({name.rpartition(".")[2] for name in layers}))
            raise UserError(f"{TARGETS}: {end} is no linear layer of the encoder; name the end of one of {known}")
    return {name: layer for name, layer in layers.items() if any(is_named(name, end) for end in tuning.targets)}


def num_trained(model: Any, tuning: EncoderLora) -> int:
    """Parameters of the adapters and of the head, on a model that may be one without weights."""
    of_head = sum(each.numel() for name, each in model.named_parameters() if is_of_head(model, name))
    layers = lora_targets(model, tuning).values()
    return of_head + sum(tuning.rank * (layer.in_features + layer.out_features) for layer in layers)


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
