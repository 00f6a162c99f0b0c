import math

import pytest
import torch

from plumbob.configs.settings.algorithms import AdaptiveKl, FixedKl
from plumbob.trainers.algorithms.kl import initial_coefficient, kl_estimate, next_coefficient


def test_estimates_by_hand():
    # pi = 1/2, pi_ref = 1/4: u = ln 2. k1 = 0.6931, k2 = 0.2402, k3 = 1/2 - 1 + 0.6931 = 0.1931.
    logprobs, ref_logprobs = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)])
    u = math.log(2)
    assert kl_estimate(logprobs, ref_logprobs, "k1").item() == pytest.approx(u)
    assert kl_estimate(logprobs, ref_logprobs, "k2").item() == pytest.approx(u * u / 2)
    assert kl_estimate(logprobs, ref_logprobs, "k3").item() == pytest.approx(u - 0.5)


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(kind):
    # The expectation under pi, summed over all outcomes, is KL(pi || pi_ref) itself.
    pi, ref = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.3, 0.3, 0.4])
    exact = 0.7 * math.log(0.7 / 0.3) + 0.2 * math.log(0.2 / 0.3) + 0.1 * math.log(0.1 / 0.4)
    assert (pi * kl_estimate(pi.log(), ref.log(), kind)).sum().item() == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_equal_policies_have_zero_kl_exactly(kind):
    logprobs = torch.tensor([-0.1, -30.0])
    assert kl_estimate(logprobs, logprobs.clone(), kind).tolist() == [0.0, 0.0]


def test_k3_has_its_gradient_to_the_last_digits():
    # 1 - exp(-u) = 1 - 2 at u = -ln 2.
    logprobs = torch.tensor([math.log(0.25)], requires_grad=True)
    kl_estimate(logprobs, torch.tensor([math.log(0.5)]), "k3").backward()
    assert logprobs.grad is not None and logprobs.grad.item() == pytest.approx(-1.0, rel=1e-6)


def test_k3_goes_on_as_a_straight_line_when_the_reference_is_far_more_likely():
    # exp(200) overflows float32. At u = -20 the slope is 1 - e^20, and stays so: e^20 - 1 - 20 + 180 (e^20 - 1).
    logprobs = torch.tensor([-200.0], requires_grad=True)
    found = kl_estimate(logprobs, torch.tensor([0.0]), "k3")
    found.backward()
    assert found.item() == pytest.approx(181 * math.exp(20) - 201, rel=1e-6)
    assert logprobs.grad is not None and logprobs.grad.item() == pytest.approx(1 - math.exp(20), rel=1e-6)


def test_a_fixed_coefficient_stays():
    config = FixedKl(coefficient=0.07)
    assert initial_coefficient(config) == 0.07
    assert next_coefficient(config, 0.07, measured_kl=1000.0, num_samples=64) == 0.07


@pytest.mark.parametrize(
    ("measured_kl", "expected"),
    [
        (4.0, 0.1),  # on target
        (4.4, 0.1 * (1 + 0.1 * 0.5)),  # 10% over, half a horizon
        (40.0, 0.1 * (1 + 0.2 * 0.5)),  # the error is held at 20%
        (-40.0, 0.1 * (1 - 0.2 * 0.5)),
    ],
)
def test_the_adaptive_coefficient_moves_towards_the_target(measured_kl, expected):
    config = AdaptiveKl(coefficient=0.1, target=4.0, horizon=128)
    assert next_coefficient(config, 0.1, measured_kl, num_samples=64) == pytest.approx(expected)


def test_a_batch_larger_than_the_horizon_cannot_turn_the_coefficient_negative():
    # 1 - 0.2 x 1000 / 100 would be -1.
    config = AdaptiveKl(coefficient=0.1, target=4.0, horizon=100)
    assert next_coefficient(config, 0.1, measured_kl=0.0, num_samples=1000) == pytest.approx(0.08)
