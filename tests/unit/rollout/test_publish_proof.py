"""The proof of a publish: what an engine should hold, and what counts as holding something else."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from plumbob.rollout.publish_proof import PublishError, max_difference, verify_publish
from plumbob.rollout.samplers.vllm.lora_readback import compare_slot

A = "base_model.model.m.q_proj.lora_A.weight"
B = "base_model.model.m.q_proj.lora_B.weight"


def test_difference_counts_what_lies_outside() -> None:
    found = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, -5.0]])
    # 2 - 1.5 inside, |-5| outside.
    assert max_difference(torch.tensor([[1.0, 1.5]]), found) == 5.0
    assert max_difference(torch.tensor([[1.0, 1.5]]), found[:1]) == 0.5


@pytest.mark.parametrize("difference", [1e-12, float("nan"), float("inf")])
def test_any_difference_fails(difference: float) -> None:
    with pytest.raises(PublishError, match=f"worker w3, version 7: the engine's {A} differs"):
        verify_publish("w3", 7, [A, B], {A: difference, B: 0.0}, 0.1)


def test_a_tensor_without_a_place_fails() -> None:
    with pytest.raises(PublishError, match=r"holds no .*lora_B\.weight \(1 of 2 tensors"):
        verify_publish("w3", 7, [A, B], {A: 0.0}, 0.1)


def test_a_proof_says_what_was_compared() -> None:
    proof = verify_publish("w3", 7, [A, B], {A: 0.0, B: 0.0, "other (nothing was sent)": 0.0}, 0.1)
    assert (proof.worker, proof.version, proof.num_tensors, proof.max_abs_difference) == ("w3", 7, 2, 0.0)


def sliced_layer(rank: int, a: Tensor, b: Tensor) -> SimpleNamespace:
    """One tensor-parallel rank of two of a column-parallel layer, as vLLM keeps it: A whole, B's rows shared out."""
    half = b.shape[0] // 2

    def slice_b(whole: Tensor) -> Tensor:
        return whole[rank * half : (rank + 1) * half]

    stacked_a = torch.zeros(2, 1, 8, a.shape[1])
    stacked_b = torch.zeros(2, 1, half, 8)
    stacked_a[1, 0, : a.shape[0]] = a
    stacked_b[1, 0, :, : b.shape[1]] = slice_b(b)
    return SimpleNamespace(
        tp_size=2, lora_a_stacked=(stacked_a,), lora_b_stacked=(stacked_b,), slice_lora_a=lambda whole: whole,
        slice_lora_b=slice_b,
    )  # fmt: skip


@pytest.mark.parametrize("rank", [0, 1])
def test_each_rank_is_held_to_its_own_share(rank: int) -> None:
    a, b = torch.arange(6.0).view(2, 3), torch.arange(8.0).view(4, 2)
    places = {("m.q_proj", True): A, ("m.q_proj", False): B}
    layer = sliced_layer(rank, a, b)
    manager = SimpleNamespace(lora_index_to_id=[None, 8], modules={"m.q_proj": layer}, packed_modules={})
    assert compare_slot(manager, 8, {A: a, B: b}, places) == {A: 0.0, B: 0.0}
    # Row 3 belongs to the second rank only.
    changed = b.clone()
    changed[3, 1] += 0.25
    assert compare_slot(manager, 8, {A: a, B: changed}, places)[B] == (0.25 if rank == 1 else 0.0)
    with pytest.raises(PublishError, match="no active adapter of id 9"):
        compare_slot(manager, 9, {A: a, B: b}, places)
