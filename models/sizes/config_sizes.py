"""The sizes of a model: those in its config, checked before anything is built by them, and what they amount to."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from plumbob.configs.settings.models import ModelRef
from plumbob.core.errors import UserError

BOUNDS = {
    "num_hidden_layers": 1_000,
    "num_attention_heads": 10_000,
    "num_key_value_heads": 10_000,
    "head_dim": 100_000,
    "hidden_size": 1_000_000,
    "intermediate_size": 10_000_000,
    "vocab_size": 100_000_000,
    "max_position_embeddings": 1_000_000_000,
}
"""By the names that transformers gives every model's config: at least five times those of the largest models there are.

Making so many layers, without weights, takes seconds.
"""


def check_config_sizes(config: Any, ref: ModelRef, folder: str) -> None:
    """Raises UserError when a size in the config is no whole number, or none that a model can have."""
    for part in (config, config.get_text_config()):
        for name, bound in BOUNDS.items():
            for size in _values(getattr(part, name, None)):
                if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= bound:
                    raise UserError(
                        f"{ref.setting}={folder}: {name} in its config.json is {str(size)[:60]}, and must be a whole "
                        f"number from 1 to {bound:,}; copy the model again"
                    )


def _values(value: object) -> Iterator[object]:
    """A size, or one for each layer; a size that is left out is the model's own business."""
    match value:
        case None:
            return
        case list() | tuple():
            yield from value
        case _:
            yield value


# -------------------------------------------------------------------------------------------------- what it amounts to


@dataclass(frozen=True)
class ModelSizes:
    """Of a transformer, known before its weights are loaded.

    Attributes:
        num_parameters: of all weights, those that two layers share counted once.
        num_layers: transformer blocks.
        hidden_size: width of what goes from block to block.
        intermediate_size: width inside the feed-forward part.
        kv_size: width of keys, and of values, of one token in one block: key-value heads times their width.
        vocab_size: tokens.
        num_multiplied: weights of linear layers that each token is multiplied with, the output embeddings aside. Of a
            model with experts all of them are counted, also those that a token does not go through.
    """

    num_parameters: int
    num_layers: int
    hidden_size: int
    intermediate_size: int
    kv_size: int
    vocab_size: int
    num_multiplied: int


def sizes_of(model: Any) -> ModelSizes:
    """The sizes of a transformers model, which may be one without weights (on torch's device `meta`)."""
    config = model.config.get_text_config()
    heads = _first(config, "num_attention_heads", "n_head", 1)
    hidden = _first(config, "hidden_size", "n_embd", 1)
    head_width = _first(config, "head_dim", "head_dim", hidden // heads)
    return ModelSizes(
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        num_layers=_first(config, "num_hidden_layers", "n_layer", 1),
        hidden_size=hidden,
        intermediate_size=_first(config, "intermediate_size", "n_inner", 4 * hidden),
        kv_size=head_width * _first(config, "num_key_value_heads", "num_key_value_heads", heads),
        vocab_size=_first(config, "vocab_size", "vocab_size", 1),
        num_multiplied=_num_multiplied(model),
    )


def _num_multiplied(model: Any) -> int:
    head = model.get_output_embeddings()
    # Embeddings are looked up; told by what they have, since who only writes job files loads no torch.
    layers = [layer for layer in model.modules() if layer is not head and not hasattr(layer, "num_embeddings")]
    weights = {
        id(parameter): parameter.numel()
        for layer in layers
        for parameter in layer.parameters(recurse=False)
        if parameter.ndim > 1
    }
    return sum(weights.values())


def _first(config: Any, name: str, other_name: str, default: int) -> int:
    """A size by either of the names that configs give it; of one for each layer, the largest."""
    found = next((value for each in (name, other_name) if (value := getattr(config, each, None)) is not None), default)
    return max((size for size in _values(found) if isinstance(size, int)), default=default)
