"""The memory of workers by hand-made sizes. What the allocator and frameworks add is measured, and left out here."""

from typing import Literal

import pytest

from plumbob.models.sizes import memory
from plumbob.models.sizes.config_sizes import ModelSizes
from plumbob.models.sizes.memory import (
    Beside,
    MemoryEstimate,
    MicroBatch,
    Trained,
    forward_memory,
    learner_memory,
    scorer_memory,
    transformers_memory,
    vllm_memory,
)

SIZES = ModelSizes(
    num_parameters=100_000,
    num_layers=2,
    hidden_size=8,
    intermediate_size=16,
    kv_size=4,
    vocab_size=50,
    num_multiplied=0,
)
"""A block whose weights are trained keeps 10 x 8 + 4 x 16 = 144 numbers of each token; one layer in a forward alone has
7 x 8 + 2 x 4 + 4 x 16 = 128."""

BATCH = MicroBatch(num_tokens=10, num_predicted=6)
FORWARD = {"activations": 10 * 144 * 2 * 4, "logits": 2 * 6 * 50 * 4}


@pytest.fixture(autouse=True)
def nothing_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LEARNER", "VLLM", "TRANSFORMERS", "SCORER"):
        monkeypatch.setattr(memory, f"{name}_FLOOR", 0)
    for name in ("ALLOCATED", "ALLOCATED_BESIDE_4_BITS", "ALLOCATED_IN_FORWARD"):
        monkeypatch.setattr(memory, name, 1.0)
    monkeypatch.setattr(memory, "STEP_COPIES", 0)
    monkeypatch.setattr(memory, "RECOMPUTED", 0.25)


@pytest.mark.parametrize(
    ("zero_stage", "num_ranks", "weights", "optimizer", "gradients"),
    [
        # Two moments of 4 bytes, and a gradient.
        (0, 1, 400_000, 800_000, 400_000),
        (0, 4, 400_000, 800_000, 800_000),
        # A copy and two moments of a quarter: 12 / 4 bytes. Gradients, those of a quarter, and what comes of them.
        (2, 4, 400_000, 300_000, 600_000),
        (1, 1, 400_000, 1_200_000, 800_000),
        # Weights too are a quarter; gradients have a buffer from the beginning; they are gathered: 16 bytes, and 4 that
        # are sent.
        (3, 4, 100_000, 400_000, 2_000_000),
        (3, 1, 400_000, 1_600_000, 1_600_000),
    ],
)
def test_what_is_trained_whole(
    zero_stage: Literal[0, 1, 2, 3], num_ranks: int, weights: int, optimizer: int, gradients: int
) -> None:
    trained = Trained(100_000, 0, weight_bytes=4, zero_stage=zero_stage, num_ranks=num_ranks)
    assert learner_memory(SIZES, trained, BATCH) == MemoryEstimate(
        weights=weights,
        optimizer=optimizer,
        gradients=gradients,
        **FORWARD,
    )


def test_an_adapter_costs_its_own_moments_and_gradients_alone() -> None:
    trained = Trained(1000, 4 * 102_000, weight_bytes=4, zero_stage=2, num_ranks=1)
    found = learner_memory(SIZES, trained, BATCH)
    assert (found.weights, found.optimizer, found.gradients) == (4 * 103_000, 12_000, 8_000)
    assert found.certain == 4 * 103_000 + 12_000
    assert found.total == found.certain + 8_000 + sum(FORWARD.values())


def test_layers_of_4_bits_leave_the_allocator_more_to_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "ALLOCATED_BESIDE_4_BITS", 3.0)
    cases: tuple[tuple[Beside, int], ...] = (("lora", 128), ("lora-layers", 3 * 128), ("encoder", 128))
    for beside, numbers in cases:
        trained = Trained(1000, 100_000, weight_bytes=4, zero_stage=2, num_ranks=1, beside=beside)
        assert learner_memory(SIZES, trained, BATCH).activations == 10 * numbers * 2 * 4


def test_checkpoints_keep_the_inputs_of_layers_and_one_layer() -> None:
    trained = Trained(0, 100_000, weight_bytes=4, zero_stage=0, num_ranks=1)
    batch = MicroBatch(10, 6, has_checkpoints=True)
    # The inputs of 2 layers, one layer, and a quarter of both, which the allocator keeps of what was computed anew.
    assert learner_memory(SIZES, trained, batch).activations == 10 * 4 * (2 * 8 + 1.5 * 144)


def test_in_bfloat16_products_take_half() -> None:
    halved = learner_memory(SIZES, Trained(0, 100_000, 2, zero_stage=0, num_ranks=1), BATCH)
    assert (halved.activations, halved.logits) == (FORWARD["activations"] / 2, 0.75 * FORWARD["logits"])
    # In autocast 4 x 8 numbers between blocks and of norms stay float32, and 80 + 5 x 8 + 16 are bfloat16; so are
    # copies of the matrices of both blocks, 8 x (2 x 8 + 2 x 4) + 3 x 8 x 16 numbers each.
    mixed = learner_memory(SIZES, Trained(0, 100_000, 4, 0, 1), MicroBatch(10, 6, autocast=True))
    assert mixed.activations == 10 * 2 * (4 * 32 + 2 * 136) + 2 * 2 * (8 * 24 + 384)
    assert mixed.logits == 0.75 * FORWARD["logits"]


def test_what_only_computes_keeps_one_layer() -> None:
    found = forward_memory(SIZES, 500, weight_bytes=2, batch=BATCH)
    assert (found.weights, found.activations) == (2 * 100_500, 4 * 10 * 128)
    assert (found.optimizer, found.gradients) == (0, 0)


def test_samplers_hold_keys_and_values_or_a_cache_of_a_given_size() -> None:
    # Logits and log-probs in float32: 2 x 4 bytes x 3 responses x 50 tokens.
    expected = MemoryEstimate(weights=2 * 100_400, logits=1200, cache=7)
    assert vllm_memory(SIZES, 2, adapter_parameters=400, cache_bytes=7, num_at_once=3) == expected
    found = transformers_memory(SIZES, 2, adapter_parameters=400, num_at_once=3, num_tokens=20)
    # 2 layers x key and value x 4 wide x 2 bytes x 3 responses x 20 tokens.
    assert (found.weights, found.logits, found.cache) == (2 * 100_400, 1200, 2 * 2 * 4 * 2 * 3 * 20)


def test_a_scorer_holds_all_its_models_and_computes_with_one() -> None:
    found = scorer_memory([(SIZES, 50), (SIZES, 30)])
    assert (found.weights, found.activations) == (2 * 400_000, 4 * 50 * 128)
    assert scorer_memory([]).total == 0


def test_parts_are_those_that_there_are() -> None:
    found = MemoryEstimate(weights=3, framework=4, programs=2, beyond=90)
    # What programs may allocate more is expected of nobody.
    assert found.parts() == {"weights": 3, "framework": 4, "programs": 2} and found.total == 9


@pytest.mark.parametrize(("zero_stage", "num_ranks", "optimizer"), [(0, 2, 203_125), (2, 2, 301_562), (3, 4, 250_781)])
def test_moments_in_8_bits(zero_stage: Literal[0, 1, 2, 3], num_ranks: int, optimizer: int) -> None:
    # Two bytes of each parameter and two scales of 4 bytes for each 256: 2.03125 bytes. At stages 1 to 3 of this rank's
    # share alone, beside the float32 copy; at stage 3 with its gradients.
    trained = Trained(100_000, 0, 4, zero_stage, num_ranks, has_8_bit_moments=True)
    assert learner_memory(SIZES, trained, BATCH).optimizer == optimizer


def test_a_step_in_8_bits_copies_a_tensor_or_the_share_into_what_activations_were_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "STEP_COPIES", 4)
    forward = sum(FORWARD.values())
    # The largest matrix has 50 words x 8 numbers: 4 copies of 1,600 bytes are less than activations took.
    for zero_stage, copied in ((0, 0), (2, 4 * 400_000 - forward)):
        trained = Trained(100_000, 0, 4, zero_stage, 1, has_8_bit_moments=True)  # type: ignore[arg-type]
        gradients = learner_memory(SIZES, trained, BATCH).gradients
        assert gradients == (400_000 if zero_stage == 0 else 800_000) + copied


def test_a_policy_has_a_portion_of_its_logits_at_once() -> None:
    trained, batch = Trained(0, 0, 4, 0, 1), MicroBatch(num_tokens=10, num_predicted=10**7)
    assert learner_memory(SIZES, trained, batch).logits == 3 * 4 * 2**23
    whole = MicroBatch(10, 10**7, has_whole_logits=True)
    assert learner_memory(SIZES, trained, whole).logits == 2 * 4 * 10**7 * 50
