"""A model in a GGUF file, dequantised once into a plain Hugging Face folder in the user's cache."""

from functools import cache, partial
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from plumbob.configs.paths import plain_model_name
from plumbob.core.activities import activities
from plumbob.core.outside import from_outside
from plumbob.models.files.weight_files import cached_model, save_model

FIX = "install what reads it (pip install gguf), or give a Hugging Face folder"


def plain_folder_of(file: Path, key: str) -> Path:
    """The folder with the file's model in float32, its tokenizer and its chat template; made where it is not there yet.

    It is in the cache under the file's name and digest.

    Args:
        key: the setting that named it.

    Raises:
        UserError: the file cannot be read, or what reads it is not installed.
    """
    what = f"{key}={file}: the GGUF file cannot be read"
    with from_outside(what, FIX):
        return cached_model(_name_of(file), partial(_convert, file, what))


@activities.during("converting a GGUF file into a plain model")
def _convert(file: Path, what: str, folder: Path) -> None:
    """transformers takes what it read for quantised, and neither casts nor saves it: a plain model is made of it."""
    with from_outside(what, FIX):
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        quantised = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    config = type(quantised.config).from_dict(
        {name: value for name, value in quantised.config.to_dict().items() if name != "quantization_config"}
    )
    tokenizer.model_max_length = config.max_position_embeddings
    model = type(quantised)(config)
    model.load_state_dict(quantised.state_dict())
    model.generation_config = quantised.generation_config
    save_model(model, tokenizer, folder)


@cache
def _name_of(file: Path) -> str:
    return plain_model_name(file)
