"""What a batch is learnt from: rewards, advantages, weights and statistics by hand, and what is refused."""

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from plumbob.configs.settings.algorithms import (
    FixedKl,
    Gae,
    Grpo,
    MaskedImportance,
    Rloo,
    ShapingSettings,
    TruncatedImportance,
)
from plumbob.configs.settings.training import OnlineSettings
from plumbob.core.errors import NotFinite, StaleRollouts
from plumbob.rollout.rollout_records import EpisodeRecord, EpisodeTurn
from plumbob.trainers.online.experience import LogprobsAndValues, make_experience
from plumbob.trainers.online.row_masks import loss_weights, response_lengths
from plumbob.trainers.online.trajectories import collate_rollouts
from tests.support.ragged_batches import NAN, ragged, rollout

PPO = OnlineSettings(
    estimator=Gae(gamma=0.5, lam=0.5, whiten=False),
    shaping=ShapingSettings(clip=5.0, missing_eos_penalty=1.0),
    importance=TruncatedImportance(cap=2.0),
)


def computed() -> LogprobsAndValues:
    """The learner's numbers; NaN wherever nothing may be read."""
    return LogprobsAndValues(
        logprobs=torch.tensor([[NAN, NAN, -1.0, -0.5, NAN], [NAN, -2.0, NAN, NAN, -1.0], [NAN] * 5]),
        ref_logprobs=torch.tensor([[NAN, NAN, -1.5, -0.25, NAN], [NAN, -1.0, NAN, NAN, -3.0], [NAN] * 5]),
        values=torch.tensor([[NAN, NAN, 0.5, 0.25, NAN], [NAN, 1.0, NAN, NAN, -0.5], [NAN] * 5]),
    )


def golden(online=PPO, **changes):
    arguments = {
        "trajectories": collate_rollouts(ragged(), pad_id=0),
        "scores": torch.tensor([3.0, 7.0, 1.0]),
        "computed": computed(),
        "online": online,
        "kl_coefficient": 0.1,
        "learner_version": 3,
        "max_tokens": 64,
    } | changes
    return make_experience(**arguments)[:2]


def test_every_tensor_by_hand():
    # beta 0.1, u = log pi - log pi_ref. Row 0: u = 0.5, -0.25. Row 1: u = -1, 2.
    # Rewards. Row 0: -0.05; 0.025 + 3 = 3.025 at the EOS. Row 1: 0.1; -0.2 + 5 (7 clipped) - 1 (no EOS) = 3.8.
    # GAE with gamma 0.5 and lambda 0.5.
    # Row 0: A3 = 3.025 - 0.25 = 2.775; A2 = -0.05 + 0.5 x 0.25 - 0.5 + 0.25 x 2.775 = 0.26875.
    # Row 1: A4 = 3.8 + 0.5 = 4.3; A1, across the hole, = 0.1 + 0.5 x -0.5 - 1 + 0.25 x 4.3 = -0.075.
    # Returns add the values: 0.76875, 3.025; 0.925, 3.8.
    # Importance weights: e^(-1 + 1) = 1, e^(-0.5 + 1); e^(-2 + 1.5), and e^(-1 + 2) = 2.7, held at 2.
    experience, _ = golden()
    close = {
        "old_logprobs": [[0, 0, -1, -0.5, 0], [0, -2, 0, 0, -1], [0] * 5],
        "advantages": [[0, 0, 0.26875, 2.775, 0], [0, -0.075, 0, 0, 4.3], [0] * 5],
        "loss_weights": [[0, 0, 1, 1, 0], [0, 1, 0, 0, 1], [0] * 5],
        "importance_weights": [[0, 0, 1, math.exp(0.5), 0], [0, math.exp(-0.5), 0, 0, 2], [0] * 5],
    }
    for name, expected in close.items():
        torch.testing.assert_close(getattr(experience, name), torch.tensor(expected, dtype=torch.float32), msg=name)
    values = torch.tensor([[0, 0, 0.5, 0.25, 0], [0, 1, 0, 0, -0.5], [0] * 5])
    returns = torch.tensor([[0, 0, 0.76875, 3.025, 0], [0, 0.925, 0, 0, 3.8], [0] * 5])
    torch.testing.assert_close(experience.critic.values, values)
    torch.testing.assert_close(experience.critic.returns, returns)
    assert experience.kl is None
    trajectories = collate_rollouts(ragged(), pad_id=0)
    for name in ("input_ids", "attention_mask", "action_mask"):
        assert torch.equal(getattr(experience, name), getattr(trajectories, name))


def test_rewards_of_turns_are_earned_where_the_turns_end():
    # Row 1 has two turns, of one token each, with a tool's answer between: they earned 2 and 5, its score is the sum.
    # Clipped to 5, less 1 (no EOS), it is 4: with 2 at the first turn, 4 - 7 + 5 = 2 are left at the second.
    # Less the KL: 2 + 0.1 and 2 - 0.2. GAE: A4 = 1.8 + 0.5 = 2.3; A1 = 2.1 + 0.5 x -0.5 - 1 + 0.25 x 2.3 = 1.425.
    rollouts = ragged()
    rollouts[1] = replace(rollouts[1], episode=EpisodeRecord((EpisodeTurn(0, "a", 2.0), EpisodeTurn(3, "b", 5.0))))
    trajectories = collate_rollouts(rollouts, pad_id=0)
    at_turns, stats = golden(trajectories=trajectories, turn_reward_scale=1.0)
    assert at_turns.critic.returns[1].tolist() == pytest.approx([0, 2.425, 0, 0, 1.8], abs=1e-6)
    assert at_turns.advantages[1].tolist() == pytest.approx([0, 1.425, 0, 0, 2.3], abs=1e-6)
    # What does not count by itself is in the score alone, and what the whole response earned is the same.
    at_end, unplaced = golden(trajectories=trajectories)
    assert torch.equal(at_end.advantages, golden()[0].advantages)
    assert stats.return_mean == pytest.approx(unplaced.return_mean)
    assert at_turns.advantages[0].tolist() == pytest.approx(at_end.advantages[0].tolist())


def test_the_length_of_a_response_has_what_others_wrote_in_it():
    # Of the second row four tokens, of which the policy wrote two; the third has none.
    assert response_lengths(collate_rollouts(ragged(), pad_id=0).action_mask).tolist() == [2, 4, 0]


def test_every_statistic_by_hand():
    _, stats = golden()
    assert (stats.num_responses, stats.num_empty, stats.num_tokens) == (2, 1, 4)
    assert stats.score_mean == pytest.approx(5.0)  # (3 + 7) / 2: the empty row's score of 1 is left out
    assert stats.score_std == pytest.approx(2.0)
    assert stats.kl_mean == pytest.approx((0.25 + 1.0) / 2)
    assert stats.return_mean == pytest.approx((-0.05 + 3.025 + 0.1 + 3.8) / 2)
    assert stats.missing_eos_share == pytest.approx(0.5)
    assert stats.response_tokens_mean == pytest.approx(2.0)
    assert stats.sampler_gap_mean == pytest.approx((0 + 0.5 + 0.5 + 1) / 4)
    assert stats.sampler_gap_max == pytest.approx(1.0)
    assert stats.importance_cut_share == pytest.approx(0.25)
    # Return - value is the advantage: its variance against the returns'.
    explained = 1 - np.var([0.26875, 2.775, -0.075, 4.3]) / np.var([0.76875, 3.025, 0.925, 3.8])
    assert stats.explained_variance == pytest.approx(explained, rel=1e-5)


def test_whitening_touches_the_advantages_and_nothing_else():
    plain, _ = golden()
    white, _ = golden(PPO.model_copy(update={"estimator": Gae(gamma=0.5, lam=0.5)}))
    found = white.advantages[white.action_mask]
    assert found.mean().item() == pytest.approx(0, abs=1e-6)
    assert found.square().mean().item() == pytest.approx(1, rel=1e-5)
    raw = np.array([0.26875, 2.775, -0.075, 4.3])
    assert found.tolist() == pytest.approx(list((raw - raw.mean()) / raw.std()), rel=1e-5)
    assert torch.equal(white.critic.returns, plain.critic.returns)
    assert white.advantages[~white.action_mask].abs().sum() == 0


def test_masked_importance_counts_the_masked_tokens():
    # Ratios 1, 1.65, 0.61 and 2.7: only the first is within [0.9, 1.1].
    experience, stats = golden(PPO.model_copy(update={"importance": MaskedImportance(low=0.9, high=1.1)}))
    assert experience.importance_weights.sum().item() == 1.0
    assert stats.importance_cut_share == pytest.approx(0.75)


def test_the_shaped_reward_arrives():
    # Row 1's last token: -0.2 + 0.5 x 7 - 1 = 2.3, which is also its return; row 0's EOS token: 0.025 + 1.5.
    shaping = ShapingSettings(scale=0.5, clip=None, missing_eos_penalty=1.0)
    experience, stats = golden(PPO.model_copy(update={"shaping": shaping}))
    assert experience.critic.returns[1, 4].item() == pytest.approx(2.3)
    assert experience.critic.returns[0, 3].item() == pytest.approx(1.525)
    assert stats.score_mean == pytest.approx(5.0)


@pytest.mark.parametrize("beta", [0.1, 0.7])
def test_without_a_critic_the_kl_is_summed_into_the_return_before_the_baseline(beta):
    # Whole returns: row 0: 3 - beta (0.5 - 0.25); row 1: 4 - beta (-1 + 2). RLOO: each less the other.
    online = PPO.model_copy(update={"estimator": Rloo()})
    experience, stats = golden(online, computed=replace(computed(), values=None), kl_coefficient=beta)
    difference = 4 - beta - (3 - 0.25 * beta)
    expected = [[0, 0, -difference, -difference, 0], [0, difference, 0, 0, difference], [0] * 5]
    torch.testing.assert_close(experience.advantages, torch.tensor(expected))
    assert experience.critic is None
    assert stats.explained_variance is None
    assert stats.return_mean == pytest.approx((7 - 1.25 * beta) / 2)


def three_and_a_cut_one():
    """Responses to one prompt: of 1 and of 2 tokens and of 2, which end, and of 3 tokens, which was cut."""
    ended = [rollout([5, 6], ids, [-1.0] * len(ids), [True] * len(ids), "stop") for ids in ([2], [7, 2], [8, 2])]
    return collate_rollouts([*ended, rollout([5, 6], [7, 7, 7], [-1.0] * 3, [True] * 3, "length")], pad_id=0)


def experience_of_three_and_a_cut_one(mask_truncated, **changes):
    """Scores 1, 2, 6 and -9; the policy is the reference."""
    trajectories = three_and_a_cut_one()
    same = torch.where(trajectories.action_mask, -1.0, NAN)
    online = OnlineSettings(
        estimator=Rloo(), shaping=ShapingSettings(clip=None), mask_truncated=mask_truncated, loss_mean="response"
    ).model_copy(update=changes)
    values = torch.where(trajectories.action_mask, 0.5, NAN) if isinstance(online.estimator, Gae) else None
    computed = LogprobsAndValues(logprobs=same, ref_logprobs=same, values=values)
    return make_experience(trajectories, torch.tensor([1.0, 2.0, 6.0, -9.0]), computed, online, 0.1, 3, 64)[:2]


def test_cut_responses_are_left_out_and_out_of_their_groups_mean():
    # RLOO of 1, 2 and 6: 1 - 4, 2 - 3.5 and 6 - 1.5. The fourth, at -9 - 1 (no EOS), would have made them
    # 1 + 2/3, 2 + 1 and 6 + 7/3: each that ends is praised for what was cut, the worst too.
    left_out, _ = experience_of_three_and_a_cut_one(True)
    kept, _ = experience_of_three_and_a_cut_one(False)
    expected = torch.tensor([[0, 0, -3.0, 0, 0], [0, 0, -1.5, -1.5, 0], [0, 0, 4.5, 4.5, 0], [0] * 5])
    torch.testing.assert_close(left_out.advantages, expected)
    assert kept.advantages[:3, 2].tolist() == pytest.approx([5 / 3, 3.0, 25 / 3])
    assert left_out.loss_weights.sum().item() == 3 and kept.loss_weights.sum().item() == 4
    for name in ("action_mask", "old_logprobs", "loss_weights", "importance_weights"):
        assert torch.equal(getattr(left_out, name)[:3], getattr(kept, name)[:3])
        assert not getattr(left_out, name)[3].any() and getattr(kept, name)[3].any()
    # Of what is left out the prompt alone is computed.
    assert left_out.attention_mask.sum(dim=1).tolist() == [3, 4, 4, 2]
    assert kept.attention_mask.sum(dim=1).tolist() == [3, 4, 4, 5]


def test_cut_responses_are_left_out_of_the_deviation_and_of_what_a_critic_learns():
    # Ended returns 1, 2 and 6: mean 3, sample deviation sqrt((4 + 1 + 9) / 2).
    standardised, _ = experience_of_three_and_a_cut_one(True, estimator=Grpo(std_eps=1e-9))
    assert standardised.advantages[:3, 2].tolist() == pytest.approx([-2 / 7**0.5, -1 / 7**0.5, 3 / 7**0.5])
    critic, _ = experience_of_three_and_a_cut_one(True, estimator=Gae(lam=1.0, whiten=False))
    returns = torch.tensor([[0, 0, 1.0, 0, 0], [0, 0, 2.0, 2.0, 0], [0, 0, 6.0, 6.0, 0], [0] * 5])
    torch.testing.assert_close(critic.critic.returns, returns)


def test_what_is_left_out_is_measured_all_the_same():
    _, left_out = experience_of_three_and_a_cut_one(True)
    _, kept = experience_of_three_and_a_cut_one(False)
    assert left_out == kept
    assert (left_out.missing_eos_share, left_out.num_tokens, left_out.num_empty) == (0.25, 8, 0)


def test_a_step_whose_responses_are_all_cut_teaches_nothing():
    cut = [rollout([5], [7, 7], [-1.0] * 2, [True] * 2, "length")] * 2
    same = torch.full((2, 3), -1.0)
    online = OnlineSettings(estimator=Rloo(), mask_truncated=True)
    computed = LogprobsAndValues(logprobs=same, ref_logprobs=same, values=None)
    experience, *_ = make_experience(collate_rollouts(cut, 0), torch.tensor([1.0, 2.0]), computed, online, 0.1, 3, 64)
    assert experience.advantages.abs().sum() == 0 and experience.loss_weights.sum() == 0


def test_kl_in_the_loss_leaves_the_reward_alone():
    online = PPO.model_copy(update={"estimator": Rloo(), "kl": FixedKl(place="loss", estimate="k3")})
    experience, stats = golden(online, computed=replace(computed(), values=None), kl_coefficient=0.3)
    expected = torch.tensor([[0, 0, -1.0, -1, 0], [0, 1, 0, 0, 1], [0] * 5])
    torch.testing.assert_close(experience.advantages, expected)
    assert experience.kl.coefficient == 0.3
    reference = torch.tensor([[0, 0, -1.5, -0.25, 0], [0, -1, 0, 0, -3], [0] * 5])
    torch.testing.assert_close(experience.kl.ref_logprobs, reference)
    assert stats.kl_mean == pytest.approx((0.25 + 1.0) / 2)  # Measured all the same.
    part = experience.rows(np.array([0]))
    assert part.kl.coefficient == 0.3
    assert part.kl.ref_logprobs.tolist() == [[0, 0, -1.5, -0.25]]


def test_loss_weights_of_ragged_responses():
    # Responses of 2, 1 and 0 tokens: the mean over tokens divides by 3, the mean over responses by 2.
    mask = torch.tensor([[False, True, True], [True, False, False], [False, False, False]])
    by_token, by_response = loss_weights(mask, "token"), loss_weights(mask, "response")
    assert by_token.tolist() == [[0, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert by_response.tolist() == [[0, 0.5, 0.5], [1, 0, 0], [0, 0, 0]]
    assert (by_token.sum().item(), by_response.sum().item()) == (3, 2)


def test_a_policy_that_equals_the_reference_pays_no_kl():
    same = replace(computed(), ref_logprobs=computed().logprobs)
    free, stats = golden(computed=same, kl_coefficient=0.0)
    charged, _ = golden(computed=same, kl_coefficient=1000.0)
    assert stats.kl_mean == 0.0
    assert torch.equal(free.advantages, charged.advantages)


def test_a_batch_of_empty_responses_only_is_all_zero_and_finite():
    empty = [ragged()[2]] * 2
    nothing = LogprobsAndValues(*(torch.full((2, 3), NAN) for _ in range(3)))
    experience, stats, _ = make_experience(
        collate_rollouts(empty, 0),
        torch.tensor([1.0, 2.0]),
        nothing,
        OnlineSettings(),
        kl_coefficient=0.1,
        learner_version=3,
        max_tokens=64,
    )
    assert (stats.num_responses, stats.num_empty) == (0, 2)
    assert experience.advantages.abs().sum() == 0
    assert all(math.isfinite(value) for value in vars(stats).values())


@pytest.mark.parametrize("score", [NAN, math.inf])
def test_a_score_that_is_not_finite_is_named_by_row(score):
    with pytest.raises(NotFinite, match=r"scores: not finite in row 1 of the batch of 3") as caught:
        golden(scores=torch.tensor([3.0, score, 1.0]))
    assert caught.value.rows == (1,)
    # Ray carries exceptions between processes by pickling them.
    assert pickle.loads(pickle.dumps(caught.value)).rows == (1,)


@pytest.mark.parametrize("name", ["logprobs", "ref_logprobs", "values"])
def test_a_number_that_is_not_finite_on_an_action_is_named_by_row(name):
    broken = getattr(computed(), name).clone()
    broken[1, 4] = -math.inf
    with pytest.raises(NotFinite, match=f"^{name}: not finite in row 1 "):
        golden(computed=replace(computed(), **{name: broken}))


def test_a_sampler_log_prob_that_is_not_finite_is_named_by_row():
    broken = [*ragged()[:1], rollout([5], [9, 2], [-1.0, NAN], [True, True], "stop"), ragged()[2]]
    with pytest.raises(NotFinite, match=r"^sampler_logprobs: not finite in row 1 "):
        fine = LogprobsAndValues(*(torch.zeros(3, 4) for _ in range(3)))
        golden(trajectories=collate_rollouts(broken, pad_id=0), computed=fine)


def test_an_action_without_a_version_is_refused_even_where_minus_one_would_be_fresh_enough():
    one_behind = PPO.model_copy(update={"max_staleness": 1})
    unversioned = [rollout([5, 6], [7, 2, 9], [-1.0] * 3, [True] * 3, "stop", version=-1)] * 3
    with pytest.raises(StaleRollouts, match="policy version -1"):
        golden(one_behind, trajectories=collate_rollouts(unversioned, pad_id=0), learner_version=0)


def test_tokens_older_than_the_bound_are_refused():
    one_behind = PPO.model_copy(update={"max_staleness": 1})
    golden(one_behind, learner_version=4)
    with pytest.raises(StaleRollouts, match=r"row 0, 1 .*version 3, but the learner is at version 5 .*max_staleness=1"):
        golden(one_behind, learner_version=5)
    with pytest.raises(StaleRollouts, match="version 3, but the learner is at version 2"):
        golden(one_behind, learner_version=2)


def test_one_old_token_in_a_new_response_is_enough():
    versions = collate_rollouts(ragged(), 0).versions.clone()
    versions[1, 1] = 2
    with pytest.raises(StaleRollouts, match=r"row 1 .*version 2,"):
        golden(trajectories=replace(collate_rollouts(ragged(), 0), versions=versions))


def test_rows_are_cut_to_the_longest_of_them():
    experience, _ = golden()
    part = experience.rows(np.array([2, 0]))
    assert part.num_rows == 2
    assert part.input_ids.tolist() == [[5, 6, 7, 0], [5, 6, 7, 2]]
    assert part.critic.returns[1].tolist() == pytest.approx([0, 0, 0.76875, 3.025])
    assert part.critic.values[1].tolist() == [0, 0, 0.5, 0.25]
    assert torch.equal(experience.rows(np.arange(3)).advantages, experience.advantages)
