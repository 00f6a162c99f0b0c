"""PEFT's soft prompts on a model: their encoders put on, given vectors, read back, and published as vectors alone."""

from collections.abc import Mapping
from copy import copy, deepcopy
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from torch import Tensor, nn

from plumbob.models.adapter import PROMPT_VECTORS
from plumbob.models.forward.soft_prompts import OF_TASKS, SoftPrompts, let_read_prompts, soft_prompts_of


def put_prompt(model: Any, config: PeftConfig, name: str) -> SoftPrompts:
    """Put a soft prompt on a transformers model, at random, or replace the one of that name. The base's own parameters
    are frozen.

    PEFT makes the encoder and completes the config; the model reads its vectors as `models/forward/soft_prompts.py` has
    it, with nothing of PEFT around it.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    made: Any = PeftModel(base, copy(config), adapter_name=name)
    prompts = soft_prompts_of(base) or let_read_prompts(base)
    prompts.encoders[name], prompts.configs[name] = made.prompt_encoder[name], made.peft_config[name]
    return prompts


def give_vectors(prompts: SoftPrompts, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Give a soft prompt what an adapter's file has of it.

    Raises:
        ValueError: it is not that alone, or of another shape.
    """
    own: Any = prompts.encoders[name]
    if set(tensors) != {PROMPT_VECTORS} or tensors[PROMPT_VECTORS].shape != own.embedding.weight.shape:
        found = {key: list(tensor.shape) for key, tensor in tensors.items()}
        expected = list(own.embedding.weight.shape)
        raise ValueError(f"the soft prompt is {PROMPT_VECTORS} {expected}, and the file has {found}")
    with torch.no_grad():
        own.embedding.weight.copy_(tensors[PROMPT_VECTORS])


def begin_alike(model: nn.Module, names: tuple[str, ...]) -> None:
    """Let the soft prompts of a model begin as the first of them."""
    prompts = soft_prompts_of(model)
    assert prompts is not None, "the model has no soft prompts"
    for name in names[1:]:
        prompts.encoders[name].load_state_dict(prompts.encoders[names[0]].state_dict())


def encoder_parameter_names(model: nn.Module, name: str) -> frozenset[str]:
    """Of the parameters of a soft prompt, as the model calls them."""
    beginning = f"soft_prompts.encoders.{name}."
    return frozenset(found for found, _ in model.named_parameters() if found.startswith(beginning))


def begin_tasks(encoder: Any) -> None:
    """Let the soft prompts of all tasks begin as the one that they share: each task's matrix is 1 but for the noise of
    ranks beyond the first."""
    with torch.no_grad():
        encoder.prefix_task_cols[..., 0] = 1.0
        encoder.prefix_task_rows[:, 0] = 1.0


def published_vectors(prompts: SoftPrompts, name: str, full: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the encoder gives with these parameters, as others load it; of several tasks what it is made of.

    Args:
        full: the model's name of a parameter -> whole CPU tensor.
    """
    own = _own_parameters(name, full)
    if prompts.configs[name].peft_type == OF_TASKS:
        return {PROMPT_VECTORS if key == "embedding.weight" else key: tensor for key, tensor in own.items()}
    copied = SoftPrompts()
    copied.encoders[name], copied.configs[name] = deepcopy(prompts.encoders[name]).cpu(), prompts.configs[name]
    copied.encoders[name].load_state_dict(own)
    with torch.no_grad():
        return {PROMPT_VECTORS: copied.vectors(name).detach().clone()}


def vectors_of_tasks(prompts: SoftPrompts, name: str, full: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Name of a task -> its vectors P * (u v), as prompt tuning saves them; empty of a soft prompt of one."""
    own = _own_parameters(name, full)
    found = {}
    for number, task in enumerate(prompts.task_names):
        change = own["prefix_task_cols"][number] @ own["prefix_task_rows"][number]
        found[task] = {PROMPT_VECTORS: own["embedding.weight"] * change}
    return found


def _own_parameters(name: str, full: Mapping[str, Tensor]) -> dict[str, Tensor]:
    beginning = f"soft_prompts.encoders.{name}."
    return {key.removeprefix(beginning): tensor for key, tensor in full.items() if key.startswith(beginning)}
