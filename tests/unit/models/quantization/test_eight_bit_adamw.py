"""AdamW with moments in 8 bits: its blocks, and a step of bitsandbytes' own against one by hand."""

import pytest
import torch
from bitsandbytes.functional import quantize_blockwise

from plumbob.models.quantization.eight_bit_adamw import BLOCK, create_state, in_blocks, open_adamw_8bit, table

GENERATOR = torch.Generator().manual_seed(0)


def test_the_tables_have_0_and_1_and_lie_closer_near_0() -> None:
    for is_second in (False, True):
        numbers = table(is_second)
        assert len(numbers) == 256 and 0.0 in numbers and numbers.max() == 1.0
        assert (numbers.min() < 0) != is_second
        assert numbers[numbers > 0].min() < 1e-6


@pytest.mark.parametrize("is_second", [False, True])
@pytest.mark.parametrize("size", [1, BLOCK, 3 * BLOCK + 7])
def test_blocks_of_one_scale_stay_to_the_bit(size: int, is_second: bool) -> None:
    codes = torch.randint(0, 256, (size,), generator=GENERATOR, dtype=torch.uint8)
    scales = torch.rand(-(-size // BLOCK), generator=GENERATOR)
    found, absmax = in_blocks(codes, scales.repeat_interleave(BLOCK)[:size], is_second)
    assert torch.equal(found, codes) and torch.equal(absmax, scales)


def test_codes_of_several_blocks_are_rounded_anew_and_padding_is_0() -> None:
    numbers = table(is_second=False)
    one, half = int((numbers == 1.0).nonzero()), int((numbers - 0.5).abs().argmin())
    codes = torch.full((2 * BLOCK,), one, dtype=torch.uint8)
    codes[3] = half
    scales = torch.full((2 * BLOCK,), 2.0)
    scales[4:8] = 4.0
    scales[8:BLOCK] = torch.nan
    scales[BLOCK:] = torch.nan
    found, absmax = in_blocks(codes, scales, is_second=False)
    # 2, about 1 and 4 over the largest, 4. Nothing of the second block is anything but padding.
    values = numbers[found.long()] * absmax.repeat_interleave(BLOCK)
    expected = torch.zeros(2 * BLOCK)
    expected[:3], expected[3], expected[4:8] = 2.0, 2 * float(numbers[half]), 4.0
    assert absmax.tolist() == [4.0, 0.0]
    torch.testing.assert_close(values, expected, rtol=0, atol=4 * 0.5 * 0.015)


def test_a_step_is_that_of_adam_from_what_8_bits_kept() -> None:
    """m = 0.9 m + 0.1 g, v = 0.999 v + 0.001 g^2, w -= lr m / (1 - 0.9^t) / (sqrt(v / (1 - 0.999^t)) + 1e-8)."""
    weight = torch.nn.Parameter(torch.randn(2 * BLOCK + 9, generator=GENERATOR))
    adamw = open_adamw_8bit([{"params": [weight], "lr": 0.01}], weight_decay=0.0, is_paged=True)
    create_state(adamw, weight)
    assert {key: one.dtype for key, one in adamw.state[weight].items() if key[:5] == "state"} == {
        "state1": torch.uint8,
        "state2": torch.uint8,
    }
    by_hand, first, second = weight.detach().clone(), torch.zeros(()), torch.zeros(())
    for step in (1, 2, 3):
        weight.grad = torch.randn(weight.shape, generator=GENERATOR)
        adamw.step()
        first, second = 0.9 * first + 0.1 * weight.grad, 0.999 * second + 0.001 * weight.grad**2
        by_hand -= 0.01 * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        torch.testing.assert_close(weight.detach(), by_hand, rtol=0, atol=1e-5)
        first, second = _kept(first, is_second=False), _kept(second, is_second=True)


def _kept(values: torch.Tensor, is_second: bool) -> torch.Tensor:
    numbers = table(is_second)
    codes, state = quantize_blockwise(values, code=numbers, blocksize=BLOCK)
    kept: torch.Tensor = numbers[codes.long()] * state.absmax.repeat_interleave(BLOCK)[: len(values)]
    return kept
