import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.objectives import (
    DrGrpo,
    FixedKl,
    Gae,
    Grpo,
    MaskedImportance,
    ReinforcePlusPlus,
    ReinforcePlusPlusBaseline,
    Rloo,
    Shaping,
    TruncatedImportance,
)
from configs.stages import Ppo
from rollout.records import Rollout, SampleRequest
from trainers.errors import NotFinite, StaleRollouts
from trainers.experience import Evaluated, loss_weights, make_experience
from trainers.trajectories import Trajectories, collate_rollouts

NAN = float("nan")
PPO = Ppo(
    estimator=Gae(gamma=0.5, lam=0.5, whiten=False),
    shaping=Shaping(clip=5.0, missing_eos_penalty=1.0),
    importance=TruncatedImportance(cap=2.0),
)


def rollout(prompt_ids, token_ids, logprobs, action_mask, finish_reason, version=3, group_id="g") -> Rollout:
    request = SampleRequest("p", group_id, 0, 0, "text", np.array(prompt_ids, dtype=np.int32))
    return Rollout(
        request,
        finish_reason,
        "text",
        np.array(token_ids, dtype=np.int32),
        np.array(logprobs, dtype=np.float32),
        np.full(len(token_ids), version, dtype=np.int32),
        np.array(action_mask, dtype=np.bool_),
        "worker-0",
    )


def ragged() -> list[Rollout]:
    """A whole answer that ends in EOS; one that was cut, with a tool's two tokens inside; one without any token."""
    return [
        rollout([5, 6], [7, 2], [-1.0, -1.0], [True, True], "stop"),
        rollout([5], [9, 3, 4, 9], [-1.5, NAN, NAN, -2.0], [True, False, False, True], "length"),
        rollout([5, 6, 7], [], [], [], "length", group_id="h"),
    ]


def evaluated() -> Evaluated:
    """The learner's numbers; NaN wherever nothing may be read."""
    return Evaluated(
        logprobs=torch.tensor([[NAN, NAN, -1.0, -0.5, NAN], [NAN, -2.0, NAN, NAN, -1.0], [NAN] * 5]),
        ref_logprobs=torch.tensor([[NAN, NAN, -1.5, -0.25, NAN], [NAN, -1.0, NAN, NAN, -3.0], [NAN] * 5]),
        values=torch.tensor([[NAN, NAN, 0.5, 0.25, NAN], [NAN, 1.0, NAN, NAN, -0.5], [NAN] * 5]),
    )


def golden(ppo=PPO, **changes):
    arguments = {
        "trajectories": collate_rollouts(ragged(), pad_id=0),
        "scores": torch.tensor([3.0, 7.0, 1.0]),
        "evaluated": evaluated(),
        "ppo": ppo,
        "kl_coefficient": 0.1,
        "learner_version": 3,
    } | changes
    return make_experience(**arguments)


def test_collated_tensors():
    found = collate_rollouts(ragged(), pad_id=0)
    assert found.input_ids.tolist() == [[5, 6, 7, 2, 0], [5, 9, 3, 4, 9], [5, 6, 7, 0, 0]]
    assert found.attention_mask.int().tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert found.action_mask.int().tolist() == [[0, 0, 1, 1, 0], [0, 1, 0, 0, 1], [0, 0, 0, 0, 0]]
    assert found.sampler_logprobs.tolist() == [[0, 0, -1, -1, 0], [0, -1.5, 0, 0, -2], [0] * 5]
    assert found.versions.tolist() == [[-1, -1, 3, 3, -1], [-1, 3, -1, -1, 3], [-1] * 5]
    assert found.ends_with_eos.tolist() == [True, False, False]
    assert found.groups.tolist() == [0, 0, 1]
    dtypes = [getattr(found, name).dtype for name in ("input_ids", "sampler_logprobs", "versions", "action_mask")]
    assert dtypes == [torch.int64, torch.float32, torch.int32, torch.bool]


def test_a_pad_token_that_is_also_eos_does_not_hide_a_real_eos():
    found = collate_rollouts(ragged(), pad_id=2)
    assert found.attention_mask[0].tolist() == [True, True, True, True, False]


def test_what_cannot_be_collated():
    whole = ragged()[0]
    with pytest.raises(ValueError, match="no rollouts"):
        collate_rollouts([], pad_id=0)
    with pytest.raises(ValueError, match=r"rollout 1 .*partial"):
        collate_rollouts([whole, replace(whole, finish_reason="partial")], pad_id=0)
    with pytest.raises(ValueError, match=r"differ in length: \[1, 2\]"):
        collate_rollouts([replace(whole, logprobs=whole.logprobs[:1])], pad_id=0)
    with pytest.raises(ValueError, match="empty prompt"):
        collate_rollouts([rollout([], [7, 2], [-1.0, -1.0], [True, True], "stop")], pad_id=0)


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


def test_every_statistic_by_hand():
    _, stats = golden()
    assert (stats.num_answers, stats.num_empty, stats.num_tokens) == (2, 1, 4)
    assert stats.score_mean == pytest.approx(5.0)  # (3 + 7) / 2: the empty row's score of 1 is left out
    assert stats.score_std == pytest.approx(2.0)
    assert stats.kl_mean == pytest.approx((0.25 + 1.0) / 2)
    assert stats.return_mean == pytest.approx((-0.05 + 3.025 + 0.1 + 3.8) / 2)
    assert stats.missing_eos_share == pytest.approx(0.5)
    assert stats.answer_tokens_mean == pytest.approx(2.0)
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
    shaping = Shaping(scale=0.5, clip=None, missing_eos_penalty=1.0)
    experience, stats = golden(PPO.model_copy(update={"shaping": shaping}))
    assert experience.critic.returns[1, 4].item() == pytest.approx(2.3)
    assert experience.critic.returns[0, 3].item() == pytest.approx(1.525)
    assert stats.score_mean == pytest.approx(5.0)


@pytest.mark.parametrize("beta", [0.1, 0.7])
def test_without_a_critic_the_kl_is_summed_into_the_return_before_the_baseline(beta):
    # Whole returns: row 0: 3 - beta (0.5 - 0.25); row 1: 4 - beta (-1 + 2). RLOO: each less the other.
    ppo = PPO.model_copy(update={"estimator": Rloo()})
    experience, stats = golden(ppo, evaluated=replace(evaluated(), values=None), kl_coefficient=beta)
    difference = 4 - beta - (3 - 0.25 * beta)
    expected = [[0, 0, -difference, -difference, 0], [0, difference, 0, 0, difference], [0] * 5]
    torch.testing.assert_close(experience.advantages, torch.tensor(expected))
    assert experience.critic is None
    assert stats.explained_variance is None
    assert stats.return_mean == pytest.approx((7 - 1.25 * beta) / 2)


def test_kl_in_the_loss_leaves_the_reward_alone():
    ppo = PPO.model_copy(update={"estimator": Rloo(), "kl": FixedKl(place="loss", estimate="k3")})
    experience, stats = golden(ppo, evaluated=replace(evaluated(), values=None), kl_coefficient=0.3)
    expected = torch.tensor([[0, 0, -1.0, -1, 0], [0, 1, 0, 0, 1], [0] * 5])
    torch.testing.assert_close(experience.advantages, expected)
    assert experience.kl.coefficient == 0.3
    reference = torch.tensor([[0, 0, -1.5, -0.25, 0], [0, -1, 0, 0, -3], [0] * 5])
    torch.testing.assert_close(experience.kl.ref_logprobs, reference)
    assert stats.kl_mean == pytest.approx((0.25 + 1.0) / 2)  # Measured all the same.
    part = experience.rows(np.array([0]))
    assert part.kl.coefficient == 0.3
    assert part.kl.ref_logprobs.tolist() == [[0, 0, -1.5, -0.25]]


def test_loss_weights_of_ragged_answers():
    # Answers of 2, 1 and 0 tokens: the mean over tokens divides by 3, the mean over answers by 2.
    mask = torch.tensor([[False, True, True], [True, False, False], [False, False, False]])
    by_token, by_answer = loss_weights(mask, "token"), loss_weights(mask, "answer")
    assert by_token.tolist() == [[0, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert by_answer.tolist() == [[0, 0.5, 0.5], [1, 0, 0], [0, 0, 0]]
    assert (by_token.sum().item(), by_answer.sum().item()) == (3, 2)


def test_a_policy_that_equals_the_reference_pays_no_kl():
    same = replace(evaluated(), ref_logprobs=evaluated().logprobs)
    free, stats = golden(evaluated=same, kl_coefficient=0.0)
    charged, _ = golden(evaluated=same, kl_coefficient=1000.0)
    assert stats.kl_mean == 0.0
    assert torch.equal(free.advantages, charged.advantages)


def test_a_batch_of_empty_answers_only_is_all_zero_and_finite():
    empty = [ragged()[2]] * 2
    nothing = Evaluated(*(torch.full((2, 3), NAN) for _ in range(3)))
    experience, stats = make_experience(
        collate_rollouts(empty, 0), torch.tensor([1.0, 2.0]), nothing, Ppo(), kl_coefficient=0.1, learner_version=3
    )
    assert (stats.num_answers, stats.num_empty) == (0, 2)
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
    broken = getattr(evaluated(), name).clone()
    broken[1, 4] = -math.inf
    with pytest.raises(NotFinite, match=f"^{name}: not finite in row 1 "):
        golden(evaluated=replace(evaluated(), **{name: broken}))


def test_a_sampler_log_prob_that_is_not_finite_is_named_by_row():
    broken = [*ragged()[:1], rollout([5], [9, 2], [-1.0, NAN], [True, True], "stop"), ragged()[2]]
    with pytest.raises(NotFinite, match=r"^sampler_logprobs: not finite in row 1 "):
        fine = Evaluated(*(torch.zeros(3, 4) for _ in range(3)))
        golden(trajectories=collate_rollouts(broken, pad_id=0), evaluated=fine)


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


def test_one_old_token_in_a_new_answer_is_enough():
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


def random_batch(draw, num_rows: int, width: int) -> tuple[Trajectories, torch.Tensor, Evaluated]:
    lengths = torch.tensor([draw(st.integers(1, width)) for _ in range(num_rows)])
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    attention_mask = torch.arange(width) < lengths[:, None]
    action_mask = attention_mask & (torch.rand(num_rows, width, generator=generator) < 0.7)
    action_mask[:, 0] = False
    numbers = lambda: torch.randn(num_rows, width, generator=generator)  # noqa: E731
    trajectories = Trajectories(
        torch.ones(num_rows, width, dtype=torch.long),
        attention_mask,
        action_mask,
        torch.where(action_mask, numbers(), 0.0),
        torch.where(action_mask, 3, -1).int(),
        torch.rand(num_rows, generator=generator) < 0.5,
        torch.randint(0, 2, (num_rows,), generator=generator),
    )
    return trajectories, torch.randn(num_rows, generator=generator), Evaluated(numbers(), numbers(), numbers())


def permuted(record, order):
    return type(record)(*(tensor[order] for tensor in vars(record).values()))


ESTIMATORS = [Gae(gamma=0.9), ReinforcePlusPlus(gamma=0.9), ReinforcePlusPlusBaseline(), Rloo(), Grpo(), DrGrpo()]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: estimator.kind)
@settings(max_examples=15, deadline=None)
@given(st.data())
def test_order_of_rows_and_amount_of_padding_change_nothing(estimator, data):
    num_rows, width, padding = data.draw(st.integers(1, 6)), data.draw(st.integers(2, 8)), data.draw(st.integers(0, 3))
    trajectories, scores, forward = random_batch(data.draw, num_rows, width)
    order = torch.tensor(data.draw(st.permutations(range(num_rows))))
    ppo = Ppo(estimator=estimator, loss_mean=data.draw(st.sampled_from(["token", "answer"])))

    def padded(tensor: torch.Tensor, fill: float) -> torch.Tensor:
        return tensor if tensor.dim() == 1 else torch.nn.functional.pad(tensor, (0, padding), value=fill)

    wide = Trajectories(*(padded(tensor, 0) for tensor in vars(trajectories).values()))
    wide_forward = Evaluated(*(padded(tensor, NAN) for tensor in vars(forward).values()))
    narrow_result, narrow_stats = make_experience(trajectories, scores, forward, ppo, 0.1, 3)
    wide_result, wide_stats = make_experience(
        permuted(wide, order), scores[order], permuted(wide_forward, order), ppo, 0.1, 3
    )
    for name, expected in tensors(narrow_result).items():
        found = tensors(wide_result)[name]
        torch.testing.assert_close(found[:, :width], expected[order], rtol=1e-4, atol=1e-5, msg=name)
        assert found[:, width:].abs().sum() == 0 if expected.is_floating_point() else True
    for name, expected in vars(narrow_stats).items():
        found = getattr(wide_stats, name)
        assert found is expected is None or found == pytest.approx(expected, rel=1e-4, abs=1e-5), name


def tensors(experience):
    """Every tensor [B, T] of an experience by name."""
    named = vars(experience) | (vars(experience.critic) if experience.critic else {})
    return {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}
