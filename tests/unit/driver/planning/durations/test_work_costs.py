"""Seconds of work on a machine whose rates are given: each of them derived here by hand."""

from dataclasses import replace

import pytest
import torch

from plumbob.configs.settings.workers import TransformersEngine, VllmEngine
from plumbob.driver.planning.durations.machine_rates import ComputeRates, MachineRates
from plumbob.driver.planning.durations.work_costs import (
    ADAM_BYTES,
    AUTOCAST_FORWARD,
    AUTOCAST_LEARN,
    DECODE_S,
    DECODE_SHARE,
    FORWARD_PASSES,
    LEARN_PASSES,
    PUBLISH_BYTE_S,
    PUBLISH_S,
    STEP_S,
    LearnerCosts,
    SamplerCosts,
    ScorerCosts,
)
from tests.unit.models.sizes.test_operations import SIZES

RATES = ComputeRates(products=1000.0, elements=500.0)
LEARNER = LearnerCosts(SIZES, RATES, read_per_s=100.0, num_trained=250)

ELEMENTS = 2 * (8 + 16)
"""Of a token: in each of two blocks its width outside and inside of the feed-forward part."""


def test_products_and_what_stands_beside_them_take_turns() -> None:
    # 3920 operations in blocks and 3200 of the head, as test_operations counts them, of 10 tokens.
    forward = (3920 + 3200) / 1000 + FORWARD_PASSES * 10 * ELEMENTS / 500
    assert LEARNER.forward_s(10, 6, 4) == pytest.approx(forward)
    # Half of the model's 500 weights are trained: 2.5 forwards of products.
    learnt = 2.5 * (3920 + 3200) / 1000 + LEARN_PASSES * 10 * ELEMENTS / 500
    assert LEARNER.learn_s(10, 6, 4) == pytest.approx(learnt)
    cast = replace(LEARNER, is_cast=True)
    assert cast.forward_s(10, 6, 4) - forward == pytest.approx((AUTOCAST_FORWARD - 1) * FORWARD_PASSES * ELEMENTS / 50)
    assert cast.learn_s(10, 6, 4) - learnt == pytest.approx((AUTOCAST_LEARN - 1) * LEARN_PASSES * ELEMENTS / 50)
    # Blocks go forward once more.
    again = replace(LEARNER, is_recomputed=True)
    assert again.learn_s(10, 6, 4) - learnt == pytest.approx(3920 / 1000 + FORWARD_PASSES * 10 * ELEMENTS / 500)


def test_a_step_moves_what_is_trained_with_its_moments() -> None:
    assert LEARNER.steps_s(3) == pytest.approx(3 * (STEP_S + ADAM_BYTES * 250 / 100))
    adapter = replace(LEARNER, num_trained=0, num_beside=10)
    assert adapter.steps_s(1) == pytest.approx(STEP_S + ADAM_BYTES * 10 / 100)


def test_responses_are_sampled_as_many_at_a_time_as_there_is_room_for() -> None:
    sampler = SamplerCosts(SIZES, RATES, 100.0, 4, VllmEngine(), num_at_once=4, merges=True)
    # 10 responses, 4 at a time: 3 rounds of 7 tokens, each reading 500 weights of 4 bytes at 100 bytes a second.
    waiting = 3 * 7 * (DECODE_S["vllm"] + 4 * 500 / 100)
    # Two prompts of 6 tokens, each with a head of 800; then 10 x 5 tokens, which see 17 / 2 on average.
    prefill = 12 * (200 + 192) + 2 * 800
    decode = 50 * (200 + 4 * 8.5 * 8 * 2) + 50 * 800
    products = (prefill + decode / DECODE_SHARE) / 1000
    expected = waiting + products + FORWARD_PASSES * 62 * ELEMENTS / 500
    assert sampler.sample_s(10, 2, prompt=6, mean=5, longest=7) == pytest.approx(expected)
    assert sampler.publish_s == pytest.approx(PUBLISH_S + PUBLISH_BYTE_S * 2000)
    slower = replace(sampler, engine=TransformersEngine(), merges=False)
    more = 21 * (DECODE_S["transformers"] - DECODE_S["vllm"])
    assert slower.sample_s(10, 2, prompt=6, mean=5, longest=7) == pytest.approx(expected + more)
    assert slower.publish_s == PUBLISH_S


def test_each_response_goes_through_every_reward_model() -> None:
    scorer = ScorerCosts((SIZES, SIZES), (RATES, ComputeRates(500.0, 250.0)))
    # 10 tokens of responses 5 long: 200 for the weights, 4 x 8 x 2.5 for attention in each of 2 layers, and no head.
    # The second model has half of the cores.
    once = 10 * (200 + 2 * 80) / 1000 + FORWARD_PASSES * 10 * ELEMENTS / 500
    assert scorer.score_s(num_responses=2, length=5) == pytest.approx(3 * once)


def test_this_machine_is_measured_once_and_its_threads_stay() -> None:
    rates, num_threads = MachineRates(), torch.get_num_threads()
    found = rates.computing(SIZES, "bfloat16", 2)
    assert found.products > 1e6 and found.elements > 1e6 and rates.reading(1) > 1e8
    assert rates.computing(SIZES, "bfloat16", 4) == ComputeRates(2 * found.products, 2 * found.elements)
    assert torch.get_num_threads() == num_threads == rates.num_threads
