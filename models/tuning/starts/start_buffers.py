"""Of a model whose adapters begin with parts of weights: where they began, which a checkpoint keeps beside them.

A decomposition that is made once more may differ in its last digits, on another machine or with other threads.
"""

from torch import Tensor, nn

START = "start"
"""Name of the buffer, and what a checkpoint has before the name of its layer."""


def start_buffers(model: nn.Module) -> dict[str, Tensor]:
    """By the names that a checkpoint has them under; what is copied into one is where its adapter began."""
    ends = f".{START}"
    return {
        f"{START}.{name.removesuffix(ends)}": buffer for name, buffer in model.named_buffers() if name.endswith(ends)
    }
