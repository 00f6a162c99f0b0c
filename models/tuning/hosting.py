"""On a model that only samples: adapters put on under a name, read back, taken off; weights of its own replaced."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from peft import PeftConfig, PeftModel
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor

from plumbob.models.adapter import PROMPT_VECTORS, Adapter
from plumbob.models.forward.soft_prompts import soft_prompts_of
from plumbob.models.tuning.layers.bottleneck_layers import register_bottleneck
from plumbob.models.tuning.prompt_encoders import give_vectors, put_prompt

_WRAPPED = re.compile(r"^base_model\.model\.|\.base_layer(?=\.)|\.original_module(?=\.)")
"""What PEFT adds to the names of a model's own parameters."""


def put_adapter(model: Any, adapter: Adapter, name: str) -> Any:
    """Add or replace the adapter `name`. `model` is a transformers model or what an earlier call returned.

    Raises:
        ValueError: PEFT cannot make the adapter, or its tensors do not fit the model.
    """
    config = _config(adapter.config)
    if config.is_prompt_learning:
        config.inference_mode = True
        give_vectors(put_prompt(model, config, name), name, adapter.tensors)
        return model.eval()
    if not isinstance(model, PeftModel):
        model = PeftModel(model, config, adapter_name=name)
    elif name not in model.peft_config:
        model.add_adapter(name, config)
    result = set_peft_model_state_dict(model, dict(adapter.tensors), adapter_name=name)
    if result.unexpected_keys:
        raise ValueError(f"the model has no place for the adapter's {result.unexpected_keys[0]}")
    return model.eval()


def read_adapter(model: Any, name: str, sent: Iterable[str]) -> dict[str, Tensor]:
    """The adapter's tensors as they are in the model, under PEFT's saved names.

    Args:
        sent: names that it came with; PEFT saves a base's embeddings beside adapters on them, and others do not.
    """
    prompts = soft_prompts_of(model)
    if prompts is not None and name in prompts.encoders:
        return {PROMPT_VECTORS: prompts.vectors(name).detach()}
    with_embeddings = any(".base_layer." in each for each in sent)
    return dict(get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=with_embeddings))


def remove_adapter(model: Any, name: str, instead: str) -> None:
    """Delete the adapter `name`; `instead`, another one, is active afterwards."""
    prompts = soft_prompts_of(model)
    if prompts is not None and name in prompts.encoders:
        del prompts.encoders[name], prompts.configs[name]
        return
    if instead in model.peft_config:  # It is of the same kind.
        model.set_adapter(instead)
    model.delete_adapter(name)


def _config(content: Mapping[str, Any]) -> PeftConfig:
    register_bottleneck()
    return PeftConfig.from_peft_type(**content)


def put_weights(model: Any, tensors: Mapping[str, Tensor]) -> None:
    """Copy weights over the model's own, whatever adapters stand beside them.

    Args:
        tensors: transformers' names of parameters -> what they become.

    Raises:
        ValueError: the model has no such parameter, or it is of another shape; nothing was copied.
    """
    own = read_weights(model)
    for name, tensor in tensors.items():
        if name not in own:
            raise ValueError(f"the model has no parameter {name}")
        if own[name].shape != tensor.shape:
            raise ValueError(f"{name} is {list(own[name].shape)}, and was sent as {list(tensor.shape)}")
    for name, tensor in tensors.items():
        own[name].copy_(tensor)


def read_weights(model: Any) -> dict[str, Tensor]:
    """The model's own parameters by transformers' names, whatever adapters stand beside them; what is done to them is
    done to the model."""
    return {_WRAPPED.sub("", name): parameter.detach() for name, parameter in model.named_parameters()}
