"""Adapters on their way from a learner to an engine: made, written, damaged as a publish can be, and what they give."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from plumbob.models.adapter import CONFIG_FILE, WEIGHTS_FILE, Adapter, save_adapter
from plumbob.rollout.rollout_records import Rollout
from tests.support.plain_transformers import load_plain, plain_logprobs
from tests.support.tiny_policy import TEMPERATURE, make_adapter


class AdapterWriter:
    """What a sampler writes an adapter with, for its engine to read: a test may damage what was written."""

    def __init__(self) -> None:
        self.damage = lambda folder: None

    def __call__(self, adapter: Adapter, folder: Path) -> None:
        save_adapter(adapter, folder)
        self.damage(folder)


def on_embeddings(folder: str, version: int) -> Adapter:
    """An adapter on the tokens' embeddings and on the output's, rank 4."""
    whole = make_adapter(folder, version, seed=version)
    rows = AutoModelForCausalLM.from_pretrained(folder).config.vocab_size
    shapes = {
        "model.embed_tokens.lora_embedding_A": (4, rows),
        "model.embed_tokens.lora_embedding_B": (128, 4),
        "lm_head.lora_A.weight": (4, 128),
        "lm_head.lora_B.weight": (rows, 4),
    }
    generator = torch.Generator().manual_seed(version)
    tensors = {
        f"base_model.model.{name}": torch.randn(shape, generator=generator) * 0.05 for name, shape in shapes.items()
    }
    return replace(whole, config={**whole.config, "target_modules": ["embed_tokens", "lm_head"]}, tensors=tensors)


def change_one_element(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS_FILE)
    value = tensors["base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"][17]
    # The smallest step that bfloat16 can show at this value is at most 2**-7 of it.
    value[2] *= 1 + 2**-7
    save_file(tensors, folder / WEIGHTS_FILE)


def leave_one_module_out(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS_FILE)
    save_file(
        {name: tensor for name, tensor in tensors.items() if "layers.1.mlp.up_proj" not in name}, folder / WEIGHTS_FILE
    )


def change_the_scaling(folder: Path) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(config | {"lora_alpha": 11}))


def logprob_gaps(
    adapter: Adapter, folder: Path, rollouts: Sequence[Rollout], temperature: float = TEMPERATURE
) -> NDArray[np.float32]:
    """|log-prob - that of plain transformers and peft| of every token."""
    save_adapter(adapter, folder)
    model = load_plain(str(folder))
    plain = (plain_logprobs(model, r.request.prompt_ids, r.token_ids, temperature) for r in rollouts)
    return np.concatenate([np.abs(logprobs - r.logprobs) for logprobs, r in zip(plain, rollouts, strict=True)])


def largest_gap(adapter: Adapter, folder: Path, rollouts: Sequence[Rollout]) -> float:
    return float(logprob_gaps(adapter, folder, rollouts).max())


def of_config(folder: str, config: PeftConfig, version: int) -> Adapter:
    """An adapter as PEFT begins and writes it, with all that it trains moved at random."""
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    generator = torch.Generator().manual_seed(version)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    tensors = {
        name: tensor.clone() for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()
    }
    content = model.peft_config["default"].to_dict() | {"base_model_name_or_path": folder, "inference_mode": True}
    lists = json.dumps(content, default=lambda value: sorted(value) if isinstance(value, set) else str(value))
    return Adapter(version, json.loads(lists), tensors)
