"""LoRA products on a CPU: equal to vLLM's own, an adapter at a time, and nothing for tokens that have none."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from plumbob.rollout.samplers.vllm.lora_products import NAME, GroupedLora, use_grouped_lora

NUM_SLOTS, RANK, WIDTH, OUT = 3, 4, 16, (8, 12)
IDS = [11, 12, 13]
"""Of the adapters in the slots."""


def wrappers(tokens: list[int], is_prefill: bool) -> tuple[PunicaWrapperCPU, GroupedLora]:
    """vLLM's and ours, of a batch of one token for each request: the id of its adapter, or 0."""
    mapping = SimpleNamespace(index_mapping=tuple(tokens), prompt_mapping=tuple(tokens), is_prefill=is_prefill)
    found = []
    for kind in (PunicaWrapperCPU, GroupedLora):
        wrapper = kind(64, 64, "cpu")
        wrapper.update_metadata(mapping, IDS, NUM_SLOTS, 100)
        found.append(wrapper)
    return found[0], found[1]  # type: ignore[return-value]


def applied(wrapper: PunicaWrapperCPU, num_tokens: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    y, x = numbers(num_tokens, sum(OUT)), numbers(num_tokens, WIDTH)
    a = tuple(numbers(NUM_SLOTS, 1, RANK, WIDTH) for _ in OUT)
    b = tuple(numbers(NUM_SLOTS, 1, out, RANK) for out in OUT)
    wrapper.add_lora_linear(y, x, a, b, 0.5, OUT)
    return y


@pytest.mark.parametrize("is_prefill", [True, False])
@pytest.mark.parametrize("tokens", [[12] * 6, [11, 13, 13, 12, 11, 11]])
def test_the_same_as_vllms_own(tokens: list[int], is_prefill: bool) -> None:
    theirs, ours = wrappers(tokens, is_prefill)
    expected = applied(theirs, len(tokens), torch.float32)
    torch.testing.assert_close(applied(ours, len(tokens), torch.float32), expected, rtol=1e-6, atol=1e-5)
    # Products in bfloat16 are rounded at other places, each to one part in 256.
    expected = applied(theirs, len(tokens), torch.bfloat16)
    torch.testing.assert_close(applied(ours, len(tokens), torch.bfloat16), expected, rtol=2**-6, atol=2**-4)


@pytest.mark.parametrize("is_prefill", [True, False])
def test_by_hand_and_without_an_adapter(is_prefill: bool) -> None:
    # Rank 1 of width 2: x A^T = 1 x 3 + 2 x 4 = 11, times the scale 2 = 22; B = [5, 6] adds 110 and 132 to 1 and 1.
    # The second token has no adapter, beside one that has.
    _, ours = wrappers([13, 0], is_prefill)
    y = torch.ones(2, 2)
    a = torch.zeros(NUM_SLOTS, 1, 1, 2)
    b = torch.full((NUM_SLOTS, 1, 2, 1), 7.0)
    a[2, 0], b[2, 0] = torch.tensor([[3.0, 4.0]]), torch.tensor([[5.0], [6.0]])
    ours.add_lora_linear(y, torch.tensor([[1.0, 2.0]] * 2), (a,), (b,), 2.0, (2,))
    assert y.tolist() == [[111.0, 133.0], [1.0, 1.0]]


def test_an_engine_on_a_cpu_is_given_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.lora.punica_wrapper.punica_selector import get_punica_wrapper
    from vllm.platforms import current_platform

    monkeypatch.setattr(type(current_platform), "get_punica_wrapper", current_platform.get_punica_wrapper)
    use_grouped_lora()
    assert current_platform.get_punica_wrapper() == NAME
    assert type(get_punica_wrapper(64, 64, "cpu")) is GroupedLora
