"""The sizes in a model's config, looked at before anything is built by them."""

from collections.abc import Iterator
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
