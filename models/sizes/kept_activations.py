"""What one transformer block keeps of each token for its backward, by what is trained (Kept), counted as autograd does.

A block of Llama's, of width h, with m inside its feed-forward part, all of it frozen:

    x -> norm -> q, k, v -> attention -> out -> + x -> norm -> gate, up -> silu(gate) up -> down -> +
    h            h  h  h    h                h           m     m    m

Of frozen linear layers nothing is kept: their slope needs their weights alone. Where a linear layer is trained, or an
adapter beside it, its input is kept too; where a method multiplies outputs by what it trains, these are. Keys and
values are counted h wide: they are repeated for the heads that share them.
"""

from typing import Literal, NamedTuple, assert_never

from plumbob.models.sizes.config_sizes import ModelSizes

Beside = Literal[
    "weights",
    "norms",
    "lora",
    "lora-layers",
    "lora-dropout",
    "dora",
    "vera",
    "ia3",
    "houlsby",
    "pfeiffer",
    "prompts",
    "encoder",
    "nothing",
]
"""What is trained: weights of the block, or its norms alone; LoRA fused with whole layers, PEFT's layers of it without
and with dropout; other adapters, by their names; what stands before every text; all of an encoder; or nothing of it."""


class Kept(NamedTuple):
    """Numbers of one token in one block.

    Attributes:
        wide: of those in the dtype of what goes from block to block: float32 in autocast.
        narrow: of those in the dtype of matrix products.
    """

    wide: float
    narrow: float

    def plus(self, wide: float = 0, narrow: float = 0) -> "Kept":
        return Kept(self.wide + wide, self.narrow + narrow)


def kept_by_block(model: ModelSizes, beside: Beside, autocast: bool) -> Kept:
    """In autocast each linear layer that keeps its input makes a copy of it, unless it is in bfloat16 already."""
    h, m = model.hidden_size, model.intermediate_size
    frozen = Kept(wide=2 * h, narrow=4 * h + 3 * m)
    # Of queries, keys and values, of gate and up, and of the layer after them; attention's output is kept anyway.
    inputs = frozen.plus(narrow=5 * h + m) if autocast else frozen.plus(wide=2 * h, narrow=m)
    outputs = 3 * h + 2 * model.kv_size + 2 * m
    match beside:
        case "weights":
            return inputs.plus(wide=2 * h)
        case "norms":
            return frozen.plus(wide=2 * h)
        case "lora" | "lora-layers":
            return inputs
        case "lora-dropout":  # Each layer's own input, with what it was multiplied by.
            return frozen.plus(wide=5 * h, narrow=7 * h + 2 * m)
        case "dora":
            return inputs.plus(narrow=3 * outputs)
        case "vera":  # What it adds makes gate and up float32.
            return frozen.plus(wide=3 * m, narrow=outputs - 3 * m)
        case "ia3":
            return frozen.plus(wide=m, narrow=2 * model.kv_size)
        case "houlsby":
            return frozen.plus(narrow=2 * h)
        case "pfeiffer":
            return frozen.plus(narrow=h)
        case "encoder":  # As measured, not counted.
            numbers = 7 * h + 2 * model.kv_size + 4 * m
            return Kept(wide=numbers / 2, narrow=numbers / 2)
        case "prompts" | "nothing":
            return frozen
        case _:
            assert_never(beside)
