"""PEFT adapters of any method on a base that is trained: put on, given weights, read back."""

import json
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from peft import AdaLoraConfig, PeftConfig, PromptTuningConfig, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from plumbob.core.outside import from_outside
from plumbob.models.adapter import CONFIG_FILE, SAVE_AGAIN, Adapter, load_adapter
from plumbob.models.forward.soft_prompts import soft_prompts_of
from plumbob.models.resolution import ModelSource
from plumbob.models.tuning.layers.adalora_layers import left_as_lora
from plumbob.models.tuning.layers.bottleneck_layers import register_bottleneck
from plumbob.models.tuning.layers.fused_lora import fuse_lora
from plumbob.models.tuning.prompt_encoders import (
    encoder_parameter_names,
    give_vectors,
    published_vectors,
    put_prompt,
    vectors_of_tasks,
)
from plumbob.models.tuning.starts.dora_starts import begin_dora
from plumbob.models.tuning.starts.lora_starts import as_plain_lora


def without_dropout(config: PeftConfig) -> PeftConfig:
    """Each method calls its own by another name."""
    return replace(config, **{each.name: 0.0 for each in fields(config) if each.name.endswith("dropout")})


def add_adapters(base: nn.Module, config: PeftConfig, names: tuple[str, ...]) -> Any:
    """Put one freshly initialised adapter per name on `base`; the base's own parameters are frozen.

    Returns:
        The PeftModel around it; of soft prompts the base itself, which reads the first.
    """
    if config.is_prompt_learning:
        for name in names:
            put_prompt(base, config, name).active = names[0]
        return base
    model = get_peft_model(base, config, adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, config)
    begin_dora(model, names)
    fuse_lora(model)
    return model


def config_of(source: ModelSource) -> PeftConfig:
    """Of an adapter, on the base that was found. A fresh adapter beside it changes nothing, however it began itself."""
    assert source.adapter is not None, "a full model has no adapter"
    register_bottleneck()
    with from_outside(f"{source.adapter / CONFIG_FILE}: PEFT cannot read it", SAVE_AGAIN):
        config = PeftConfig.from_pretrained(str(source.adapter))
    config.base_model_name_or_path = source.base
    if config.is_prompt_learning:  # What made the vectors is in no file.
        config.inference_mode = True
    for name in ("init_lora_weights", "init_ia3_weights", "init_weights"):
        if getattr(config, name, None) is False:
            setattr(config, name, True)
    return config


def copy_into(model: Any, folder: Path, names: tuple[str, ...]) -> None:
    """Give the named adapters the weights that lie in an adapter folder.

    Raises:
        ValueError: the folder's tensors do not fit the adapters.
    """
    saved = dict(load_adapter(folder).tensors)
    if (prompts := soft_prompts_of(model)) is not None:
        for name in names:
            give_vectors(prompts, name, saved)
        return
    for name in names:
        result = set_peft_model_state_dict(model, dict(saved), adapter_name=name)
        # Each once: what is tied to another has a second name, under which no file holds it.
        missing = sorted(adapter_parameter_names(model, name).intersection(result.missing_keys))
        if missing or result.unexpected_keys:
            raise ValueError(
                f"{folder}: does not fit the model: missing {missing}, unexpected {result.unexpected_keys}"
            )


def adapter_parameter_names(model: Any, adapter: str) -> frozenset[str]:
    """Of the parameters that PEFT made for this adapter."""
    if soft_prompts_of(model) is not None:
        return encoder_parameter_names(model, adapter)
    names = (name for name, _ in model.named_parameters())
    return frozenset(name for name in names if is_adapter_parameter(name, adapter, model.base_model.prefix))


def is_adapter_parameter(name: str, adapter: str, prefix: str) -> bool:
    """Whether PEFT made the parameter for this adapter; a module of the base may have the adapter's name.

    Args:
        prefix: of what the method puts into a layer, such as `lora_`.
    """
    return (
        re.search(rf"\.({prefix}\w+|modules_to_save|trainable_tokens_delta)\.{re.escape(adapter)}(\.|$)", name)
        is not None
    )


def published_adapter(model: Any, adapter: str, base: str, full: Mapping[str, Tensor], version: int) -> Adapter:
    """An adapter as others load it on the base as it is: under PEFT's saved names, with PEFT's config for inference.

    Args:
        base: folder or hub name that the config is to name.
        full: parameter name -> whole CPU tensor (not a ZeRO shard) of what is trained.
    """
    prompts = soft_prompts_of(model)
    if prompts is not None:
        written = _for_inference(prompts.configs[adapter], base)
        return Adapter(version, written, published_vectors(prompts, adapter, full))
    shared = {name: one.cpu() for name, one in model.named_buffers(remove_duplicate=False) if _is_shared(name, adapter)}
    tensors = get_peft_model_state_dict(
        model, state_dict=shared | dict(full), adapter_name=adapter, save_embedding_layers=False
    )
    config = model.peft_config[adapter]
    if isinstance(config, AdaLoraConfig):
        lora, left = left_as_lora(config, tensors)
        return Adapter(version, _for_inference(lora, base), left)
    return Adapter(version, *as_plain_lora(model, adapter, _for_inference(config, base), tensors))


def _for_inference(config: PeftConfig, base: str) -> Any:
    """The config as JSON has it."""
    content = config.to_dict() | {"base_model_name_or_path": base, "inference_mode": True}
    return json.loads(
        json.dumps(content, default=lambda value: sorted(value) if isinstance(value, set) else str(value))
    )


def _is_shared(buffer: str, adapter: str) -> bool:
    """Whether it is what all modules of an adapter share, and its file has once."""
    return buffer in (f"base_model.vera_A.{adapter}", f"base_model.vera_B.{adapter}")


def adapters_of_tasks(model: Any, adapter: str, base: str, full: Mapping[str, Tensor]) -> dict[str, Adapter]:
    """Name of a task -> its own soft prompt as prompt tuning has it, of a soft prompt of several; else none.

    Args:
        base, full: as of `published_adapter`.
    """
    prompts = soft_prompts_of(model)
    if prompts is None or not prompts.task_names:
        return {}
    config: Any = prompts.configs[adapter]
    of_one = PromptTuningConfig(
        num_virtual_tokens=config.num_virtual_tokens,
        token_dim=config.token_dim,
        num_transformer_submodules=1,
        num_attention_heads=config.num_attention_heads,
        num_layers=config.num_layers,
        task_type="CAUSAL_LM",
    )
    content = _for_inference(of_one, base)
    return {task: Adapter(0, content, found) for task, found in vectors_of_tasks(prompts, adapter, full).items()}
