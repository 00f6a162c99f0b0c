"""A policy as a value, an adapter of PEFT's or weights of the model itself: what is published and samplers load."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file, save_file
from torch import Tensor

from plumbob.configs.paths import ADAPTER_CONFIG_FILE as CONFIG_FILE
from plumbob.core.atomic_files import open_to_readers
from plumbob.core.outside import from_outside, read_json_object

WEIGHTS_FILE = "adapter_model.safetensors"
PROMPT_VECTORS = "prompt_embeddings"
"""What PEFT calls the vectors of a soft prompt in that file."""

SAVED_PREFIX = "base_model.model."
"""PEFT's, before the name of each module of the base in that file."""

SAVE_AGAIN = "save the adapter again"

ModelRole = Literal["policy", "reference", "value", "teacher"]
"""What a model acts as, by its weights, an adapter, or a model beside it; a teacher is always one beside it."""


@dataclass(frozen=True)
class Adapter:
    """One version of an adapter.

    Attributes:
        version: the learner's policy version; 0 before the first update.
        config: the content of PEFT's `adapter_config.json`.
        tensors: PEFT's saved names (`base_model.model....lora_A.weight`) -> CPU tensors.
    """

    version: int
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class FullWeights:
    """One version of weights of the model itself, all of them or some.

    Attributes:
        version: as of `Adapter`.
        tensors: transformers' names of parameters -> CPU tensors in the model's dtype; of one that two modules share,
            the first name. What is not among them is as in the model's folder.
    """

    version: int
    tensors: Mapping[str, Tensor]


PolicyWeights = Adapter | FullWeights
"""What makes a policy of the model that samplers are opened with."""


def save_adapter(adapter: Adapter, folder: Path) -> None:
    """Write the two files that PEFT and vLLM load, into an existing or new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in adapter.tensors.items()}, folder / WEIGHTS_FILE)
    open_to_readers(folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps(dict(adapter.config), indent=2, sort_keys=True) + "\n")


def load_adapter(folder: Path, version: int = 0) -> Adapter:
    """Read an adapter folder, whoever wrote it. Only safetensors are read. Raises UserError when it cannot be."""
    config = read_json_object(folder / CONFIG_FILE, f"{folder / CONFIG_FILE}: cannot be read", SAVE_AGAIN)
    with from_outside(f"{folder / WEIGHTS_FILE}: cannot be read", SAVE_AGAIN):
        return Adapter(version, config, load_file(folder / WEIGHTS_FILE))
