"""Losses of preference pairs: values and gradients by hand."""

import math

import numpy as np
import pytest
import torch

from plumbob.configs.settings.offline_objectives import (
    ConservativeDpoLoss,
    DpoLoss,
    HingeLoss,
    IpoLoss,
    OrpoLoss,
    PreferenceLoss,
    RobustDpoLoss,
    SimpoLoss,
    SppoLoss,
)
from plumbob.trainers.algorithms.preference_losses import (
    conservative_dpo,
    dpo,
    hinge,
    log_odds,
    preference_loss,
    robust_dpo,
)

# Two pairs, chosen and rejected: u = log(pi / pi_ref) is 2 and -1, then -1 and 1, so the margins of u are 3 and -2.
LOGPROBS = [[-6.0, -9.0], [-4.0, -2.0]]
REFERENCE = [[-8.0, -8.0], [-3.0, -3.0]]
NUM_TOKENS = [[3, 9], [4, 1]]
# So that a token's mean log-prob is -2 and -1, then -1 and -2.
SEQUENCE_MEANS = [-2.5, -1.75]
"""Of prompt and chosen response, a token."""
EVERY = [
    DpoLoss(beta=0.5),
    DpoLoss(beta=0.5, per_token=True),
    ConservativeDpoLoss(beta=0.5, flip_rate=0.1),
    RobustDpoLoss(beta=0.5, flip_rate=0.1),
    IpoLoss(tau=0.25),
    IpoLoss(tau=0.25, per_token=True),
    HingeLoss(beta=0.5),
    OrpoLoss(weight=0.5),
    OrpoLoss(weight=0.5, likelihood="sequence"),
    SimpoLoss(beta=2.0, margin=1.0),
    SppoLoss(beta=0.25),
]


def check(
    loss: PreferenceLoss,
    value: float,
    gradient: list[float],
    statistics: dict[str, float],
    sequence_gradient: list[float] | None = None,
) -> None:
    """`gradient` is of the four log-probs in order, `sequence_gradient` of the sequences' means, where any is read."""
    logprobs, means = (torch.tensor(values, requires_grad=True) for values in (LOGPROBS, SEQUENCE_MEANS))
    found = preference_loss(loss, logprobs, torch.tensor(REFERENCE), torch.tensor(NUM_TOKENS), means)
    found.loss.backward()
    assert logprobs.grad is not None and not any(value.requires_grad for value in found.statistics.values())
    assert found.loss.item() == pytest.approx(value, abs=2e-6)
    assert logprobs.grad.flatten().tolist() == pytest.approx(gradient, abs=2e-6)
    assert (None if means.grad is None else means.grad.tolist()) == sequence_gradient
    watched = {name: value.item() for name, value in found.statistics.items()}
    assert watched == pytest.approx({"loss": value, **statistics}, abs=2e-6)


# Rewards beta u = 1 and -0.5, then -0.5 and 0.5: margins h = 1.5 and -1, of which one is right.
BY_LOG_RATIO = {"accuracy": 1.0, "margin": 0.5, "chosen_reward": 0.5, "rejected_reward": 0.0}


def test_dpo_by_hand() -> None:
    # ln(1 + e^-1.5) + ln(1 + e) = 0.201413 + 1.313262; d/dh = -sigmoid(-h) = -0.182426 and -0.731059, times beta.
    check(DpoLoss(beta=0.5), 1.514675, [-0.091213, 0.091213, -0.365529, 0.365529], BY_LOG_RATIO)


def test_dpo_per_token_by_hand() -> None:
    # Means of u: 2/3 and -1/9, then -1/4 and 1. Margins h = 7/18 and -5/8: ln(1 + e^(-7/18)) + ln(1 + e^(5/8)) =
    # 0.517489 + 1.053700; sigmoid(-h) = 0.403985 and 0.651355, times beta, over the response's 3, 9, 4 and 1 tokens.
    gradient = [-0.403985 / 6, 0.403985 / 18, -0.651355 / 8, 0.651355 / 2]
    rewards = {"margin": 7 / 18 - 5 / 8, "chosen_reward": 1 / 3 - 1 / 8, "rejected_reward": 1 / 2 - 1 / 18}
    check(DpoLoss(beta=0.5, per_token=True), 1.571190, gradient, {"accuracy": 1.0, **rewards})


def test_conservative_dpo_by_hand() -> None:
    # With L(-h) = L(h) + h, (1 - e) L(h) + e L(-h) = L(h) + 0.1 h: 0.351413 + 1.213262; the slope is 0.1 higher.
    gradient = [-0.041213, 0.041213, -0.315529, 0.315529]
    check(ConservativeDpoLoss(beta=0.5, flip_rate=0.1), 1.564675, gradient, BY_LOG_RATIO)


def test_robust_dpo_by_hand() -> None:
    # ((1 - e) L(h) - e L(-h)) / (1 - 2e) = L(h) - 0.125 h: 0.013913 + 1.438262; the slope is 0.125 lower.
    gradient = [-0.153713, 0.153713, -0.428029, 0.428029]
    check(RobustDpoLoss(beta=0.5, flip_rate=0.1), 1.452175, gradient, BY_LOG_RATIO)


def test_ipo_by_hand() -> None:
    # The target is 1 / (2 tau) = 2: (3 - 2)^2 + (-2 - 2)^2, slopes 2 and -8. Rewards tau u.
    statistics = {"accuracy": 1.0, "margin": 0.25, "chosen_reward": 0.25, "rejected_reward": 0.0}
    check(IpoLoss(tau=0.25), 17.0, [2.0, -2.0, -8.0, 8.0], statistics)


def test_ipo_per_token_by_hand() -> None:
    # Means of u: 2/3 + 1/9 = 7/9 and -1/4 - 1 = -5/4. (7/9 - 2)^2 + (-5/4 - 2)^2 = 1.493827 + 10.5625.
    # Slopes -22/9 and -6.5, each over the response's 3, 9, 4 and 1 tokens. Rewards tau u / |y|.
    gradient = [-22 / 27, 22 / 81, -1.625, 6.5]
    rewards = {"margin": 0.25 * (7 / 9 - 5 / 4), "chosen_reward": 0.25 * (2 / 3 - 1 / 4)}
    rewards["rejected_reward"] = 0.25 * (1 - 1 / 9)
    check(IpoLoss(tau=0.25, per_token=True), 12.056327, gradient, {"accuracy": 1.0, **rewards})


def test_hinge_by_hand() -> None:
    # Margin 1.5 is past 1 and pushes no further; margin -1 costs 2.
    check(HingeLoss(beta=0.5), 2.0, [0.0, 0.0, -0.5, 0.5], BY_LOG_RATIO)


def test_orpo_by_hand() -> None:
    # Odds of e^-1 and e^-2: 0.581977 and 0.156518, whose quotient is 1 + e. Log odds -0.541325 and -1.854587.
    # Row 0: 2 + 0.5 ln(2 + e) = 2.775722; row 1: 1 + 0.5 ln(1 + 1 / (1 + e)) = 1.119092.
    # d log odds / dm = 1 / (1 - p) = 1.156518 (p = e^-2), 1.581977 (p = e^-1); sigmoid(-h) = 0.788058 and 0.211942.
    # Row 0: -(1 + 0.5 x 0.788058 x 1.156518) / 3 and 0.5 x 0.788058 x 1.581977 / 9;
    # row 1: -(1 + 0.5 x 0.211942 x 1.581977) / 4 and 0.5 x 0.211942 x 1.156518 / 1.
    gradient = [-0.485234, 0.069260, -0.291911, 0.122557]
    log_odds_sum = -0.541325 - 1.854587
    statistics = {"accuracy": 1.0, "margin": 0.0, "chosen_reward": log_odds_sum, "rejected_reward": log_odds_sum}
    check(OrpoLoss(weight=0.5), 3.894814, gradient, {**statistics, "nll": 3.0})
    # With the sequences' 2.5 and 1.75 in the place of 2 and 1; what the responses have is the odds' alone.
    gradient = [gradient[0] + 1 / 3, gradient[1], gradient[2] + 1 / 4, gradient[3]]
    of_sequences = OrpoLoss(weight=0.5, likelihood="sequence")
    check(of_sequences, 5.144814, gradient, {**statistics, "nll": 4.25}, sequence_gradient=[-1.0, -1.0])


def test_simpo_by_hand() -> None:
    # Rewards 2 m: -4 and -2, then -2 and -4; margins -2 and 2, less gamma: -3 and 1.
    # ln(1 + e^3) + ln(1 + e^-1) = 3.048587 + 0.313262; slopes -sigmoid(3) and -sigmoid(-1), times beta / |y|.
    gradient = [-0.952574 * 2 / 3, 0.952574 * 2 / 9, -0.268941 * 2 / 4, 0.268941 * 2]
    statistics = {"accuracy": 1.0, "margin": 0.0, "chosen_reward": -6.0, "rejected_reward": -6.0}
    check(SimpoLoss(beta=2.0, margin=1.0), 3.361849, gradient, statistics)


def test_sppo_by_hand() -> None:
    # Targets 2 and -2 for u: (2 - 2)^2 + (-1 + 2)^2 and (-1 - 2)^2 + (1 + 2)^2; slopes 0, 2, -6, 6. Rewards beta u.
    statistics = {"accuracy": 1.0, "margin": 0.25, "chosen_reward": 0.25, "rejected_reward": 0.0}
    check(SppoLoss(beta=0.25), 19.0, [0.0, 2.0, -6.0, 6.0], statistics)


# --------------------------------------------------------------------------------------------- what the papers promise


@pytest.mark.parametrize("loss", EVERY[:7], ids=lambda loss: loss.kind)
def test_before_the_first_update_every_margin_is_a_tie(loss: PreferenceLoss) -> None:
    logprobs = torch.tensor(LOGPROBS)
    found = preference_loss(loss, logprobs, logprobs, torch.tensor(NUM_TOKENS), torch.tensor(SEQUENCE_MEANS)).statistics
    assert (float(found["margin"]), float(found["accuracy"])) == (0.0, 1.0)
    # ln 2 a pair for those on a sigmoid, whatever the noise; 1 / (2 tau)^2 = 4 for IPO and twice for SPPO; 1 for hinge.
    expected = {"ipo": 8.0, "sppo": 16.0, "hinge": 2.0}.get(loss.kind, 2 * math.log(2))
    assert float(found["loss"]) == pytest.approx(expected, rel=1e-6)


def test_robust_dpo_is_the_loss_of_the_true_labels_on_average() -> None:
    margins = torch.tensor([-3.0, -0.2, 0.0, 0.7, 4.0], dtype=torch.float64)
    flipped = 0.7 * robust_dpo(margins, 0.3) + 0.3 * robust_dpo(-margins, 0.3)
    torch.testing.assert_close(flipped, dpo(margins))


def test_conservative_dpo_is_least_where_the_preference_has_the_label_s_probability() -> None:
    margin = torch.tensor([math.log(0.8 / 0.2)], dtype=torch.float64, requires_grad=True)
    conservative_dpo(margin, 0.2).sum().backward()
    assert margin.grad is not None and margin.grad.item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("loss", EVERY, ids=lambda loss: "-".join(map(str, loss.model_dump().values())))
def test_hopeless_pairs_and_certain_responses_are_finite(loss: PreferenceLoss) -> None:
    # A pair that is wrong by far, one that is right by far, responses of probability 1, and responses without a token.
    logprobs = torch.tensor([[-2000.0, -1.0], [-1.0, -2000.0], [0.0, 0.0], [0.0, -5.0]], requires_grad=True)
    tokens = torch.tensor([[4, 4], [4, 4], [3, 3], [0, 2]])
    found = preference_loss(loss, logprobs, torch.zeros(4, 2), tokens, logprobs[:, 0] / 4)
    found.loss.backward()
    assert torch.isfinite(found.loss) and logprobs.grad is not None and torch.isfinite(logprobs.grad).all()
    assert all(torch.isfinite(value) for value in found.statistics.values())


@pytest.mark.parametrize(
    ("loss", "value", "gradient"),
    [
        # h = 0.5 (0 + 2) = 1: ln(1 + e^-1), and -sigmoid(-1) times beta.
        (DpoLoss(beta=0.5), 0.313262, [-0.134471, 0.134471]),
        # Means of u 0 and -1: h = 0.5; over a response of no token as over one of one.
        (DpoLoss(beta=0.5, per_token=True), 0.474077, [-0.188770, 0.094385]),
        # (2 - 2)^2: nothing to push.
        (IpoLoss(tau=0.25), 0.0, [0.0, 0.0]),
        # Rewards 0 and 2 x -1.5, less a margin of 1: ln(1 + e^-2), slope -sigmoid(-2) times beta and times beta / 2.
        (SimpoLoss(beta=2.0, margin=1.0), 0.126928, [-0.238406, 0.119203]),
        # Targets 2 and -2: (0 - 2)^2 + (-2 + 2)^2.
        (SppoLoss(beta=0.25), 4.0, [-4.0, 0.0]),
    ],
    ids=["dpo", "dpo-per-token", "ipo", "simpo", "sppo"],
)
def test_an_empty_response_by_hand(loss: PreferenceLoss, value: float, gradient: list[float]) -> None:
    # Chosen: no token, so that its log-prob is 0 under both. Rejected: two tokens, -3 under the policy, -1 under the
    # reference: u = 0 and -2.
    logprobs = torch.tensor([[0.0, -3.0]], requires_grad=True)
    reference, tokens = torch.tensor([[0.0, -1.0]]), torch.tensor([[0, 2]])
    found = preference_loss(loss, logprobs, reference, tokens, torch.tensor([-1.0]))
    found.loss.backward()
    assert found.loss.item() == pytest.approx(value, abs=2e-6)
    assert logprobs.grad is not None and logprobs.grad.flatten().tolist() == pytest.approx(gradient, abs=2e-6)


def test_log_odds_keep_their_digits() -> None:
    # log(p / (1 - p)) in float64, where float32's 1 - p has lost its digits: p = 1 - 1e-4, 1/2 and 1e-20.
    probabilities = np.array([1 - 1e-4, 0.5, 1e-20])
    found = log_odds(torch.tensor(np.log(probabilities), dtype=torch.float32))
    expected = np.log(probabilities) - np.log1p(-probabilities)
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-5, atol=1e-6)


def test_hinge_is_flat_past_its_margin() -> None:
    assert hinge(torch.tensor([0.0, 0.75, 1.0, 5.0])).tolist() == [1.0, 0.25, 0.0, 0.0]
