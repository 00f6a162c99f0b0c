"""Ranked groups as batches, and the loss of their pairs: rows, masks, values and gradients by hand."""

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from plumbob.configs.settings.algorithms import BestOfN, OnlineDpo, Rloo
from plumbob.configs.settings.offline_objectives import DpoLoss, IpoLoss, PreferenceLoss
from plumbob.configs.settings.training import OnlineSettings
from plumbob.trainers.algorithms.advantages import best_and_worst
from plumbob.trainers.online.experience import Experience, LogprobsAndValues
from plumbob.trainers.online.objective import online_loss_terms, train_rows
from plumbob.trainers.online.objectives.movement import SQUARED_GAP
from plumbob.trainers.online.objectives.ranked_responses import ResponsePairs, row_of_each
from plumbob.trainers.online.row_masks import loss_weights

# A prompt of one token, then responses. Groups 0 and 1 of three and two, which do not stand together; group 2 has equal
# returns; row 6 is what a learner leaves out: its prompt alone.
LENGTHS = torch.tensor([2, 1, 3, 2, 1, 1, 0, 2])
GROUPS = torch.tensor([0, 1, 0, 1, 2, 2, 0, 0])
RETURNS = torch.tensor([1.0, 5.0, 4.0, 6.0, 3.0, 3.0, 9.0, 2.0])
BEST, WORST = [2, 3, 4], [0, 1, 4]
"""Of groups 0, 1 and 2; of the last its first row, in which nothing is learnt."""
COLUMNS = torch.arange(5)
ACTIONS = (COLUMNS >= 1) & (LENGTHS[:, None] >= COLUMNS)
Mean = Literal["token", "response"]
NUMBERS = 100 * torch.arange(8)[:, None] + COLUMNS
"""Of a row the hundreds, of a column the units."""


def experience(mean: Mean = "token") -> Experience:
    last = LENGTHS[:, None] == COLUMNS
    rewards = torch.where(last, RETURNS[:, None], 0.0)
    return Experience(
        input_ids=NUMBERS,
        attention_mask=(COLUMNS < 1) | ACTIONS,
        action_mask=ACTIONS,
        old_logprobs=torch.where(ACTIONS, -1.0 - NUMBERS / 1000, 0.0),
        advantages=best_and_worst(rewards, ACTIONS, GROUPS),
        loss_weights=loss_weights(ACTIONS, mean),
        importance_weights=torch.where(ACTIONS, 0.5, 0.0),
        critic=None,
        kl=None,
    )


REFERENCE = torch.where(ACTIONS, -2.0, float("nan"))
COMPUTED = LogprobsAndValues(logprobs=experience().old_logprobs, ref_logprobs=REFERENCE, values=None)


def test_which_row_each_group_has() -> None:
    found = row_of_each(experience().advantages[:, 1] > 0, GROUPS)
    assert (found.rows.tolist(), found.is_found.tolist()) == (BEST, [True, True, False])
    nothing = row_of_each(torch.zeros(8, dtype=torch.bool), GROUPS)
    assert (nothing.rows.tolist(), nothing.is_found.any()) == ([0, 1, 4], False)


def test_the_best_of_each_group_is_learnt_alone() -> None:
    batch, index = train_rows(BestOfN(), experience("response"), COMPUTED, GROUPS)
    assert isinstance(batch, Experience) and index.tolist() == BEST
    # The longest has 3 tokens after its prompt: a column of padding is left out.
    assert batch.input_ids.tolist() == NUMBERS[BEST, :4].tolist()
    assert batch.attention_mask.sum(dim=1).tolist() == [4, 3, 1]
    third, half = [1 / 3] * 3, [0.5] * 2
    expected = {
        "action_mask": [[False, True, True, True], [False, True, True, False], [False] * 4],
        "advantages": [[0.0, 1, 1, 1], [0, 1, 1, 0], [0] * 4],
        "loss_weights": [[0.0, *third], [0, *half, 0], [0] * 4],
        "importance_weights": [[0.0, 0.5, 0.5, 0.5], [0, 0.5, 0.5, 0], [0] * 4],
    }
    for name, values in expected.items():
        torch.testing.assert_close(getattr(batch, name), torch.tensor(values), msg=name)
    assert batch.old_logprobs[2].abs().sum() == 0 and batch.old_logprobs[0, 3].item() == pytest.approx(-1.203)


@pytest.mark.parametrize(
    ("mean", "count", "slopes"),
    [
        # Of tokens: each of five weighs 1, and its importance is 1/2. Of responses: 1/3 and 1/2 of a half.
        ("token", 5.0, [[0, -0.5, -0.5, -0.5], [0, -0.5, -0.5, 0], [0] * 4]),
        ("response", 2.0, [[0, -1 / 6, -1 / 6, -1 / 6], [0, -0.25, -0.25, 0], [0] * 4]),
    ],
)
def test_the_gradient_of_the_best_is_that_of_their_likelihood(
    mean: Mean, count: float, slopes: list[list[float]]
) -> None:
    batch, _ = train_rows(BestOfN(), experience(mean), COMPUTED, GROUPS)
    assert isinstance(batch, Experience)
    settings = OnlineSettings(estimator=BestOfN(), loss_mean=mean)
    (policy,) = online_loss_terms(settings, 1.0)
    logprobs = batch.old_logprobs.clone().requires_grad_()
    policy.loss_sum(lambda *_: logprobs, batch).loss.backward()
    assert policy.count(batch) == pytest.approx(count)
    torch.testing.assert_close(logprobs.grad, torch.tensor(slopes))


def pairs() -> ResponsePairs:
    batch, index = train_rows(OnlineDpo(), experience(), COMPUTED, GROUPS)
    assert isinstance(batch, ResponsePairs) and index.tolist() == BEST
    return batch


def test_the_best_and_the_worst_of_each_group_are_one_row() -> None:
    batch = pairs()
    assert batch.is_pair.tolist() == [True, True, False] and batch.lengths.tolist() == [4, 3, 1]
    for side, rows in ((batch.chosen, BEST), (batch.rejected, WORST)):
        assert side.input_ids.tolist() == NUMBERS[rows].tolist()
        assert side.action_mask.sum(dim=1).tolist() == [*LENGTHS[rows[:2]].tolist(), 0]
        assert side.attention_mask.sum(dim=1).tolist() == [*(1 + LENGTHS[rows[:2]]).tolist(), 1]
        assert side.ref_logprobs.sum(dim=1).tolist() == [*(-2.0 * LENGTHS[rows[:2]]).tolist(), 0]
        assert torch.equal(side.old_logprobs, torch.where(side.action_mask, -1 - NUMBERS[rows] / 1000, 0.0))
    both = batch.rows(np.array([1, 2])).stacked
    # Of the second and third group the widest has 2 tokens after its prompt.
    assert both.input_ids.tolist() == NUMBERS[[3, 4, 1, 4], :3].tolist()


def loss_of(loss: PreferenceLoss, batch: ResponsePairs, tokens: Tensor) -> tuple[Tensor, dict[str, float], float]:
    """Gradient by the log-probs of all tokens, the statistics' means and the loss's; `tokens`: log pi of [2G, T]."""
    settings = OnlineSettings(estimator=OnlineDpo(loss=loss), samples_per_prompt=2)
    (policy,) = online_loss_terms(settings, 0.7)
    logprobs = tokens.clone().requires_grad_()
    asked: list[tuple[object, ...]] = []

    def forward(*inputs: object) -> Tensor:
        asked.append(inputs)
        return logprobs

    sums = policy.loss_sum(forward, batch)
    sums.loss.backward()
    assert policy.role == "policy" and asked[0][3] == 0.7 and logprobs.grad is not None
    count = max(policy.count(batch), 1)
    means = {name: value.item() / count for name, value in sums.statistics.items()}
    return logprobs.grad, means, sums.loss.item()


def test_the_loss_of_pairs_by_hand() -> None:
    # log pi = -1.5 a token, log pi_ref = -2: u = |y| / 2 of the chosen (3 and 2 tokens) and the rejected (2 and 1), so
    # that both margins are 1/2. beta 0.5: h = 1/4, the loss ln(1 + e^-1/4), its slope by h -sigmoid(-1/4).
    batch = pairs()
    mask = batch.stacked.action_mask
    gradient, means, loss = loss_of(DpoLoss(beta=0.5), batch, torch.where(mask, -1.5, 0.0))
    slope = 0.5 / (1 + math.exp(0.25))
    signs = torch.tensor([-1.0, -1, 0, 1, 1, 0])[:, None]
    torch.testing.assert_close(gradient, torch.where(mask, signs * slope, 0.0))
    value = math.log(1 + math.exp(-0.25))
    assert loss == pytest.approx(2 * value)
    # Rewards beta u: 0.75 and 0.5 of the chosen, 0.5 and 0.25 of the rejected.
    expected = {"policy_loss": value, "accuracy": 1.0, "margin": 0.25, "chosen_reward": 0.625, "rejected_reward": 0.375}
    assert {name: means[name] for name in expected} == pytest.approx(expected)
    assert means.keys() == expected.keys() | {"update_kl", SQUARED_GAP}


def test_movement_is_a_mean_over_a_pairs_responses_of_their_tokens() -> None:
    # Every token 0.1 above the old policy, but those of the second rejected response, which are 0.3 below it.
    batch = pairs()
    both = batch.stacked
    moved = torch.where(both.action_mask, both.old_logprobs + 0.1, 0.0)
    moved[4] = torch.where(both.action_mask[4], both.old_logprobs[4] - 0.3, 0.0)
    _, means, _ = loss_of(DpoLoss(), batch, moved)
    assert means[SQUARED_GAP] == pytest.approx((3 * 0.01 + 0.09) / 4, rel=1e-4)
    # k3 from the old policy, exp(-v) - 1 + v with v = log pi_old - log pi, which is -0.1 and 0.3.
    assert means["update_kl"] == pytest.approx((3 * (math.expm1(0.1) - 0.1) + math.expm1(-0.3) + 0.3) / 4, rel=1e-4)


def test_any_loss_of_pairs_can_be_chosen_and_a_group_without_spread_is_in_none() -> None:
    # IPO, tau 1: (u_c - u_r - 1/2)^2 is 0 where the margin is 1/2, as it is here, and 1/4 of no pair.
    batch = pairs()
    tokens = torch.where(batch.stacked.action_mask, -1.5, 0.0)
    gradient, means, loss = loss_of(IpoLoss(tau=1.0), batch, tokens)
    assert loss == pytest.approx(0) and gradient.abs().sum() == pytest.approx(0)
    assert means["policy_loss"] == pytest.approx(0)
    alone = batch.rows(np.array([2]))
    gradient, _, loss = loss_of(IpoLoss(tau=1.0), alone, torch.zeros(2, 1))
    assert loss == 0 and gradient.abs().sum() == 0


def test_other_estimators_learn_from_the_experience_itself() -> None:
    made = experience()
    batch, index = train_rows(Rloo(), made, COMPUTED, GROUPS)
    assert batch is made and index.tolist() == list(range(8))


def test_every_step_has_as_many_rows() -> None:
    flat = replace(experience(), advantages=torch.zeros(8, 5))
    for estimator in (BestOfN(), OnlineDpo()):
        batch, index = train_rows(estimator, flat, COMPUTED, GROUPS)
        assert (batch.num_rows, index.tolist(), batch.lengths.tolist()) == (3, [0, 1, 4], [1, 1, 1])
        (policy,) = online_loss_terms(OnlineSettings(estimator=estimator, samples_per_prompt=2), 1.0)
        assert policy.count(batch) == 0
