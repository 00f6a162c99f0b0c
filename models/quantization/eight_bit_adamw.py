"""AdamW whose two moments are kept in 8 bits, by bitsandbytes (Dettmers et al. 2022, arXiv 2110.02861).

A block of 256 numbers m has the scale c = max |m|, and of each number the index of the nearest c q_i is kept, where q
are 256 numbers in [-1, 1] (the first moment), or in [0, 1] (the second), which lie closer to one another near 0.
"""

from collections.abc import Sequence
from typing import Any

import torch
from bitsandbytes.functional import create_dynamic_map, quantize_blockwise
from bitsandbytes.optim import AdamW8bit
from torch import Tensor

BLOCK = 256
"""Elements with one scale: bitsandbytes' optimizers have no other."""

MAPS = ("dynamic", "udynamic")
"""bitsandbytes' names of the tables of the first moment and of the second."""


def open_adamw_8bit(groups: Sequence[dict[str, Any]], weight_decay: float, is_paged: bool) -> torch.optim.Optimizer:
    """An AdamW whose every state is in 8 bits, however small the tensor.

    Args:
        is_paged: on a GPU, states of 100,000 elements and more are in memory that moves to the host where the GPU has
            too little. On a CPU nothing is paged.
    """
    optimizer: torch.optim.Optimizer = AdamW8bit(
        list(groups), weight_decay=weight_decay, min_8bit_size=0, is_paged=is_paged and torch.cuda.is_available()
    )
    return optimizer


def create_state(optimizer: Any, tensor: Tensor) -> None:
    """What bitsandbytes makes in a tensor's first step: moments of 0."""
    optimizer.state[tensor] = {"step": 0}
    for number, name in enumerate(MAPS, start=1):
        optimizer.state[tensor] |= {
            f"state{number}": optimizer.get_state_buffer(tensor, dtype=torch.uint8),
            f"qmap{number}": optimizer.name2qmap[name].to(tensor.device),
            f"absmax{number}": torch.zeros(-(-tensor.numel() // BLOCK), device=tensor.device),
        }


def table(is_second: bool) -> Tensor:
    """q [256]."""
    return create_dynamic_map(signed=not is_second)


def in_blocks(codes: Tensor, scales: Tensor, is_second: bool) -> tuple[Tensor, Tensor]:
    """Codes [n] and one scale for each block of them, from codes [n] that have a scale each [n].

    NaN is the scale of padding, whose value is 0. A block whose codes have one scale stays what it is, to the bit; one
    whose codes come from several blocks is rounded anew.
    """
    numbers, num_blocks = table(is_second).to(codes.device), -(-codes.numel() // BLOCK)
    zero, missing = int(numbers.abs().argmin()), num_blocks * BLOCK - codes.numel()
    is_padding = torch.nn.functional.pad(scales, (0, missing), value=torch.nan).isnan().view(num_blocks, BLOCK)
    by_block = torch.nn.functional.pad(codes, (0, missing)).view(num_blocks, BLOCK).masked_fill(is_padding, zero)
    each = torch.nn.functional.pad(scales, (0, missing)).view(num_blocks, BLOCK).masked_fill(is_padding, 0.0)
    highest = each.amax(dim=1)
    is_mixed = ((each != highest[:, None]) & ~is_padding).any(dim=1)
    if is_mixed.any():
        values = numbers[by_block[is_mixed].long()] * each[is_mixed]
        by_block[is_mixed], state = quantize_blockwise(values, code=numbers, blocksize=BLOCK)
        highest[is_mixed] = state.absmax
    return by_block.view(-1)[: codes.numel()], highest
