"""The loss terms of a step by hand: which there are, what they are divided by, and KL in the loss."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from plumbob.configs.settings.algorithms import FixedKl, Gae, Rloo
from plumbob.configs.settings.training import OnlineSettings
from plumbob.rollout.rollout_records import Rollout, SampleRequest
from plumbob.trainers.online.experience import CriticTargets, Experience, LossKl
from plumbob.trainers.online.objective import online_loss_terms, rows_to_probe
from plumbob.trainers.online.objectives.movement import SQUARED_GAP
from plumbob.trainers.online.row_masks import loss_weights

# Responses of two tokens, of one and of none; at the policy as it was, so that every ratio is 1.
MASK = torch.tensor([[False, True, True], [False, True, False], [False, False, False]])
LOGPROBS = torch.where(MASK, -1.0, 0.0)


def experience(mean: str) -> Experience:
    return Experience(
        input_ids=torch.ones(3, 3, dtype=torch.long),
        attention_mask=torch.ones(3, 3, dtype=torch.bool),
        action_mask=MASK,
        old_logprobs=LOGPROBS,
        advantages=torch.where(MASK, torch.tensor([[2.0], [-3.0], [9.0]]), 0.0),
        loss_weights=loss_weights(MASK, mean),
        importance_weights=torch.tensor([[0.0, 1.0, 0.5], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]),
        critic=None,
        kl=None,
    )


def test_without_a_critic_there_is_one_pass():
    assert [p.role for p in online_loss_terms(OnlineSettings(), 1.0)] == ["policy", "value"]
    assert [p.role for p in online_loss_terms(OnlineSettings(estimator=Rloo(), samples_per_prompt=2), 1.0)] == [
        "policy"
    ]


@pytest.mark.parametrize(
    ("mean", "count", "slopes"),
    [
        # -w i A: by token -2, -2 x 0.5 and 3; by response those of the first response are halved.
        ("token", 3.0, [[0, -2.0, -1.0], [0, 3.0, 0], [0, 0, 0]]),
        ("response", 2.0, [[0, -1.0, -0.5], [0, 3.0, 0], [0, 0, 0]]),
    ],
)
def test_the_policys_pass_by_hand(mean, count, slopes):
    (policy,) = online_loss_terms(OnlineSettings(estimator=Rloo(), loss_mean=mean), 1.0)
    logprobs = LOGPROBS.clone().requires_grad_()
    sums = policy.loss_sum(lambda *_: logprobs, experience(mean))
    sums.loss.backward()
    assert policy.count(experience(mean)) == count
    torch.testing.assert_close(logprobs.grad, torch.tensor(slopes))
    assert set(sums.statistics) == {"policy_loss", "clipped_share", "update_kl", SQUARED_GAP}


def test_the_squared_gap_by_hand():
    # Tokens of weight 1/2, 1/2 and 1, off by 0.1, -0.2 and 0.3: 0.005 + 0.02 + 0.09 over two responses.
    (policy,) = online_loss_terms(OnlineSettings(estimator=Rloo(), loss_mean="response"), 1.0)
    off = torch.tensor([[9.0, 0.1, -0.2], [9.0, 0.3, 9.0], [9.0, 9.0, 9.0]])
    batch = experience("response")
    found = policy.loss_sum(lambda *_: LOGPROBS + off, batch).statistics[SQUARED_GAP]
    assert float(found) / policy.count(batch) == pytest.approx(0.115 / 2)


def test_rows_are_probed_by_length_and_by_chunk():
    def rollout(length, worker="a"):
        request = SampleRequest("p", "g", 0, 0, "", np.ones(1, np.int32))
        ones = np.ones(length, np.int32)
        return Rollout(request, "stop", "", ones, -ones.astype(np.float32), ones, ones > 0, worker)

    # Row 20 is the longest, then come rows 0, 1, ... of 40, 39, ... tokens; chunks are rows 0 to 24 and 25 to 39.
    rollouts = [rollout(99 if row == 20 else 40 - row) for row in range(40)]
    # By length from place 0, 16 and 32: rows 20, 15 and 32; from place 3, rows 2, 18 and 35.
    assert rows_to_probe(rollouts, 0, 25).tolist() == [0, 15, 20, 25, 32]
    assert rows_to_probe(rollouts, 3, 25).tolist() == [2, 3, 18, 20, 28, 35]
    assert rows_to_probe(rollouts, 19, 25).tolist() == [2, 18, 19, 20, 29, 35]
    assert rows_to_probe(rollouts[:1], 5, 25).tolist() == [0]
    # Whoever sampled them.
    others = [replace(rollout, worker=str(row)) for row, rollout in enumerate(rollouts)]
    assert rows_to_probe(others, 3, 25).tolist() == rows_to_probe(rollouts, 3, 25).tolist()


def test_kl_in_the_loss_has_the_steps_coefficient_and_the_policys_weights():
    # u = -1 - ln(ref) = ln 2 on each token; k3's slope is 1 - exp(-u) = 1/2, k2's u. By response, with importance:
    # weights 0.5, 0.25 and 1. The coefficient is the step's, 0.8, not the one the run began with.
    slope = {"k2": math.log(2), "k3": 0.5}
    value = {"k2": math.log(2) ** 2 / 2, "k3": math.log(2) - 0.5}
    for kind in ("k2", "k3"):
        kl = FixedKl(place="loss", estimate=kind, coefficient=0.1)
        (policy,) = online_loss_terms(OnlineSettings(estimator=Rloo(), loss_mean="response", kl=kl), 1.0)
        logprobs = LOGPROBS.clone().requires_grad_()
        reference = torch.where(MASK, -1 - math.log(2), float("nan"))
        batch = replace(experience("response"), kl=LossKl(reference, 0.8))
        sums = policy.loss_sum(lambda *_, found=logprobs: found, batch)
        sums.loss.backward()
        weights = torch.tensor([[0, 0.5, 0.25], [0, 1.0, 0], [0, 0, 0]])
        expected = -weights * batch.advantages + 0.8 * weights * slope[kind]
        torch.testing.assert_close(logprobs.grad, expected)
        assert sums.statistics["kl_loss"].item() == pytest.approx(1.75 * value[kind], rel=1e-5)


def test_the_critics_pass_by_hand():
    # V - R = 0.5, -1 and 2; by response the first two weigh a half.
    _, critic = online_loss_terms(OnlineSettings(estimator=Gae(value_clip_range=None), loss_mean="response"), 1.0)
    values = torch.tensor([[9.0, 0.5, 0.0], [9.0, 2.0, 9.0], [9.0, 9.0, 9.0]], requires_grad=True)
    returns = torch.tensor([[0, 0.0, 1.0], [0, 0.0, 0], [0, 0, 0]])
    batch = replace(experience("response"), critic=CriticTargets(torch.zeros(3, 3), returns))
    sums = critic.loss_sum(lambda *_: values, batch)
    sums.loss.backward()
    assert critic.count(batch) == 2.0
    assert sums.loss.item() == pytest.approx(0.5 * (0.5 * 0.25 + 0.5 * 1.0 + 4.0))
    torch.testing.assert_close(values.grad, torch.tensor([[0, 0.25, -0.5], [0, 2.0, 0], [0, 0, 0]]))
