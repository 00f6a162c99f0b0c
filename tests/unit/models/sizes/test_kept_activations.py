"""What a block keeps for its backward, by hand: the rows of a table that was counted with autograd's own hooks."""

import pytest

from plumbob.models.sizes.config_sizes import ModelSizes
from plumbob.models.sizes.kept_activations import Beside, Kept, kept_by_block

SIZES = ModelSizes(
    num_parameters=0, num_layers=2, hidden_size=8, intermediate_size=16, kv_size=4, vocab_size=50, num_multiplied=0
)
"""The frozen block keeps 2 x 8 numbers of the residual stream, and 4 x 8 + 3 x 16 = 80 of products. Its linear layers
have 2 x 8 + 16 inputs that are not kept anyway, and 3 x 8 + 2 x 4 + 2 x 16 = 64 outputs."""


@pytest.mark.parametrize(
    ("beside", "numbers"),
    [
        *(("prompts", 96), ("norms", 96 + 16), ("lora", 96 + 32), ("weights", 96 + 32 + 16), ("houlsby", 96 + 16)),
        *(("pfeiffer", 96 + 8), ("ia3", 96 + 16 + 8), ("vera", 96 + 64), ("dora", 96 + 32 + 3 * 64)),
        ("lora-dropout", 96 + 2 * (6 * 8 + 16)),
    ],
)
def test_what_is_trained_adds_what_its_slope_reads(beside: Beside, numbers: int) -> None:
    assert sum(kept_by_block(SIZES, beside, autocast=False)) == numbers


def test_in_autocast_each_layer_copies_its_input() -> None:
    # Of queries, keys, values, gate and up 8 each, and 16 of the last layer, all in bfloat16.
    assert kept_by_block(SIZES, "lora", autocast=True) == Kept(wide=16, narrow=80 + 5 * 8 + 16)
    assert kept_by_block(SIZES, "vera", autocast=True) == Kept(wide=16 + 48, narrow=80 + 16)
