"""Seconds of work on a machine whose rates are given: each of them derived here by hand."""

from dataclasses import replace

import pytest

from plumbob.configs.settings.workers import TransformersEngine, VllmEngine
from plumbob.driver.planning.durations.machine_rates import MachineRates, ProductRates
from plumbob.driver.planning.durations.work_costs import (
    ADAM_BYTES,
    BESIDE,
    DECODE_S,
    PUBLISH_BYTE_S,
    PUBLISH_S,
    STEP_S,
    LearnerCosts,
    SamplerCosts,
    ScorerCosts,
)
from tests.unit.models.sizes.test_operations import SIZES

RATES = ProductRates(per_s=1000.0, single_per_s=500.0)
LEARNER = LearnerCosts(SIZES, RATES, read_per_s=100.0, num_trained=250)


def test_what_stands_beside_products_takes_as_long_as_in_float32() -> None:
    # 3920 operations in blocks and 3200 of the head, as test_operations counts them.
    assert LEARNER.forward_s(10, 6, 4) == pytest.approx((3920 + 3200) / 1000 + BESIDE * 3920 / 500)
    # Half of the model's 500 weights are trained: 2.5 forwards.
    assert LEARNER.learn_s(10, 6, 4) == pytest.approx(2.5 * LEARNER.forward_s(10, 6, 4))


def test_a_step_moves_what_is_trained_with_its_moments() -> None:
    assert LEARNER.steps_s(3) == pytest.approx(3 * (STEP_S + ADAM_BYTES * 250 / 100))
    adapter = replace(LEARNER, num_trained=0, num_beside=10)
    assert adapter.steps_s(1) == pytest.approx(STEP_S + ADAM_BYTES * 10 / 100)


def test_responses_are_sampled_as_many_at_a_time_as_there_is_room_for() -> None:
    sampler = SamplerCosts(SIZES, RATES, 100.0, 4, VllmEngine(), num_at_once=4, merges=True)
    # 10 responses, 4 at a time: 3 rounds of 7 tokens, each reading 500 weights of 4 bytes at 100 bytes a second.
    waiting = 3 * 7 * (DECODE_S["vllm"] + 4 * 500 / 100)
    # Two prompts of 6 tokens; then 10 x 5 tokens after those of half of 2 x 6 + 5 on average. All have a head of 800.
    prefill, decode = 12 * (200 + 192), 50 * (200 + 2 * 17 * 8 * 2)
    head = (2 + 50) * 800
    expected = waiting + (prefill + decode + head) / 1000 + BESIDE * (prefill + decode) / 500
    assert sampler.sample_s(10, 2, prompt=6, mean=5, longest=7) == pytest.approx(expected)
    assert sampler.publish_s == pytest.approx(PUBLISH_S + PUBLISH_BYTE_S * 2000)
    slower = replace(sampler, engine=TransformersEngine(), merges=False)
    more = 21 * (DECODE_S["transformers"] - DECODE_S["vllm"])
    assert slower.sample_s(10, 2, prompt=6, mean=5, longest=7) == pytest.approx(expected + more)
    assert slower.publish_s == PUBLISH_S


def test_each_response_goes_through_every_reward_model() -> None:
    scorer = ScorerCosts((SIZES, SIZES), (RATES, RATES.shared(0.5)))
    # 10 tokens of responses 5 long: 200 for the weights, 4 x 8 x 2.5 for attention in each of 2 layers, and no head.
    # Beside the products of the first model as long again; the second has half of the cores.
    work = 10 * (200 + 2 * 80)
    assert scorer.score_s(num_responses=2, length=5) == pytest.approx(3 * work * (1 / 1000 + BESIDE / 500))


def test_this_machine_is_measured_once() -> None:
    rates = MachineRates()
    found = rates.products(SIZES, "bfloat16")
    assert found.per_s > 1e6 and found.single_per_s > 1e6 and rates.read_bytes() > 1e8
    assert rates.products(SIZES, "bfloat16") == found
    assert rates.products(SIZES, "float32") == ProductRates(found.single_per_s, found.single_per_s)
