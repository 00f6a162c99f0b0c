"""Where rewards of turns go: by hand for estimators without a critic, and GAE's gradient against the enumerated one."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from plumbob.configs.settings.algorithms import (
    Clipped,
    DrGrpo,
    Estimator,
    Gae,
    Grpo,
    ReinforcePlusPlus,
    ReinforcePlusPlusBaseline,
    Rloo,
    ShapingSettings,
)
from plumbob.configs.settings.training import OnlineSettings
from plumbob.rollout.rollout_records import EpisodeRecord, EpisodeTurn, Rollout
from plumbob.trainers.algorithms import advantages
from plumbob.trainers.algorithms.policy_losses import policy_loss
from plumbob.trainers.online.experience import Experience, LogprobsAndValues, make_experience
from plumbob.trainers.online.trajectories import Trajectories, collate_rollouts
from tests.support.ragged_batches import NAN, ragged, rollout

PLAIN = ShapingSettings(clip=None, missing_eos_penalty=0.0)


def advantages_of(estimator: Estimator, turn_reward_scale: float) -> list[float]:
    """Of rows of two tokens of a turn, and of two turns of a token each, which earned 2 and 5; no KL."""
    rollouts = ragged()
    rollouts[1] = replace(rollouts[1], episode=EpisodeRecord((EpisodeTurn(0, "a", 2.0), EpisodeTurn(3, "b", 5.0))))
    logprobs = torch.tensor([[NAN, NAN, -1.0, -0.5, NAN], [NAN, -2.0, NAN, NAN, -1.0], [NAN] * 5])
    made = make_experience(
        collate_rollouts(rollouts, pad_id=0),
        torch.tensor([3.0, 7.0, 1.0]),
        LogprobsAndValues(logprobs, logprobs, None),
        OnlineSettings(estimator=estimator, shaping=PLAIN),
        0.0,
        3,
        64,
        turn_reward_scale,
    )
    found: list[float] = made.experience.advantages[made.experience.action_mask].tolist()
    return found


def test_a_return_to_go_has_the_rewards_of_turns_that_are_still_to_come() -> None:
    # Gamma 0.5. Row 0 earns 3 at its end: 1.5, 3. Row 1 earns 2 at its first turn and 5 at its second, across the hole:
    # 2 + 0.5 x 5 = 4.5, 5. Had it earned all 7 at its end: 3.5, 7. Then less the mean, over the standard deviation.
    estimator = ReinforcePlusPlus(gamma=0.5)
    for scale, returns in ((1.0, [1.5, 3.0, 4.5, 5.0]), (0.0, [1.5, 3.0, 3.5, 7.0])):
        raw = np.array(returns)
        assert advantages_of(estimator, scale) == pytest.approx(((raw - raw.mean()) / raw.std()).tolist(), rel=1e-5)
    # Without a discount a turn does not count what was earned before it: 7, 5 instead of 7, 7.
    raw = np.array([3.0, 3.0, 7.0, 5.0])
    expected = ((raw - raw.mean()) / raw.std()).tolist()
    assert advantages_of(ReinforcePlusPlus(), 1.0) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("estimator", [Rloo(), Grpo(), DrGrpo(), ReinforcePlusPlusBaseline()], ids=lambda one: one.kind)
def test_who_compares_whole_responses_sees_the_sum(estimator: Estimator) -> None:
    at_turns = advantages_of(estimator, 1.0)
    assert at_turns == pytest.approx(advantages_of(estimator, 0.0), abs=1e-6)
    assert at_turns[0] == at_turns[1] < at_turns[2] == at_turns[3]


# ------------------------------------------------------------------------------------ the gradient of two-turn episodes

FIRST = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
"""pi(a): of the first turn, of one token."""
SECOND = torch.tensor([[0.1, 0.3, 0.6], [0.5, 0.4, 0.1], [0.2, 0.2, 0.6]], dtype=torch.float64)
"""pi(b | a): of the second, behind an answer of 1 + a tokens."""
AT_FIRST = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
AT_SECOND = torch.tensor([[1.0, 0.0, 3.0], [-2.0, 4.0, 0.5], [0.0, 1.0, -1.0]], dtype=torch.float64)
OTHER_PART = torch.tensor([[0.0, 0.5, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -0.5]], dtype=torch.float64)
"""Of the reward, earned at the end: what no turn gives."""
BEFORE, BETWEEN = 0.3, torch.tensor([1.5, -0.5, 0.25], dtype=torch.float64)
"""V before the first turn, and before the second: of a critic that is wrong."""
PROMPT, ANSWER = 9, 8
NUM_ROWS = 100


def enumerated() -> Iterator[tuple[int, int, int]]:
    """(a, b, how often): each episode as often in 100 as its probability says."""
    for a in range(3):
        for b in range(3):
            yield a, b, round(NUM_ROWS * float(FIRST[a] * SECOND[a, b]))


def episode(a: int, b: int) -> Rollout:
    token_ids = [a + 1, *[ANSWER] * (1 + a), b + 1]
    last = len(token_ids) - 1
    mask = [True, *[False] * (1 + a), True]
    logprobs = [float(FIRST[a].log()), *[NAN] * (1 + a), float(SECOND[a, b].log())]
    played = rollout([PROMPT], token_ids, logprobs, mask, "stop")
    turns = EpisodeTurn(0, "", float(AT_FIRST[a])), EpisodeTurn(last, "", float(AT_SECOND[a, b]))
    return replace(played, episode=EpisodeRecord(turns))


class ListedEpisodes:
    """All of them as one batch: the policy's log-probs as tables that have a gradient."""

    def __init__(self) -> None:
        self.listed = [(a, b) for a, b, count in enumerated() for _ in range(count)]
        assert len(self.listed) == NUM_ROWS
        self.trajectories: Trajectories = collate_rollouts([episode(a, b) for a, b in self.listed], pad_id=0)
        self.first = FIRST.log().requires_grad_()
        self.second = SECOND.log().requires_grad_()

    def on_tokens(self, first: Callable[[int, int], Any], second: Callable[[int, int], Any]) -> Tensor:
        """[B, T] with one number at each turn's token; NaN elsewhere, where nothing may be read."""
        rows = []
        for (a, b), mask in zip(self.listed, self.trajectories.action_mask, strict=True):
            numbers = iter((first(a, b), second(a, b)))
            rows.append(torch.stack([torch.as_tensor(next(numbers) if is_policys else NAN) for is_policys in mask]))
        return torch.stack(rows)

    def logprobs(self) -> Tensor:
        first, second = self.first.log_softmax(0), self.second.log_softmax(1)
        return self.on_tokens(lambda a, b: first[a], lambda a, b: second[a, b])

    def experience(self, gamma: float, lam: float) -> Experience:
        logprobs = self.logprobs().detach()
        values = self.on_tokens(lambda a, b: torch.tensor(BEFORE, dtype=torch.float64), lambda a, b: BETWEEN[a])
        scores = torch.stack([AT_FIRST[a] + AT_SECOND[a, b] + OTHER_PART[a, b] for a, b in self.listed])
        online = OnlineSettings(estimator=Gae(gamma=gamma, lam=lam, whiten=False), shaping=PLAIN)
        computed = LogprobsAndValues(logprobs, logprobs, values)
        return make_experience(self.trajectories, scores, computed, online, 0.0, 3, 64, 1.0).experience

    def gradient(self, gamma: float, lam: float) -> Tensor:
        """Of the loss that the trainer minimises, by the tables' logits, [12]."""
        learnt = self.experience(gamma, lam)
        sums = policy_loss(
            Clipped(),
            self.logprobs(),
            learnt.old_logprobs,
            learnt.advantages,
            learnt.action_mask,
            learnt.loss_weights,
            learnt.importance_weights,
        )
        loss = sums.loss / learnt.loss_weights.sum()
        return torch.cat([one.flatten() for one in torch.autograd.grad(loss, (self.first, self.second))])


def gradient_of_the_expected_reward() -> Tensor:
    """Of -E[R] / 2, since each episode has two tokens: over all episodes, without samples, values or advantages."""
    first, second = FIRST.log().requires_grad_(), SECOND.log().requires_grad_()
    earned = AT_FIRST[:, None] + AT_SECOND + OTHER_PART
    expected = (first.softmax(0)[:, None] * second.softmax(1) * earned).sum()
    return torch.cat([one.flatten() for one in torch.autograd.grad(-expected / 2, (first, second))])


def gradient_by_the_formula(gamma: float, lam: float) -> Tensor:
    """E[A_1 grad log pi(a) + A_2 grad log pi(b | a)] over all episodes: a turn is a step, the answer between none."""
    first, second = FIRST.log().requires_grad_(), SECOND.log().requires_grad_()
    at_second = AT_SECOND + OTHER_PART - BETWEEN[:, None]
    at_first = (AT_FIRST + gamma * BETWEEN - BEFORE)[:, None] + gamma * lam * at_second
    weighted = at_first * first.log_softmax(0)[:, None] + at_second * second.log_softmax(1)
    loss = -(FIRST[:, None] * SECOND * weighted).sum() / 2
    return torch.cat([one.flatten() for one in torch.autograd.grad(loss, (first, second))])


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_gae_on_episodes_goes_along_the_gradient_of_the_expected_reward() -> None:
    """Whatever the critic says: with gamma and lambda 1 its values are a baseline, and cancel over all episodes."""
    assert error(ListedEpisodes().gradient(1.0, 1.0), gradient_of_the_expected_reward()) < 1e-6


def test_gae_on_episodes_takes_each_turn_for_the_next_step() -> None:
    assert error(ListedEpisodes().gradient(0.8, 0.5), gradient_by_the_formula(0.8, 0.5)) < 1e-6
    # The formula is the enumerated gradient, where both can be compared.
    assert error(gradient_by_the_formula(1.0, 1.0), gradient_of_the_expected_reward()) < 1e-12


def reset_at_holes(
    rewards: Tensor, values: Tensor, action_mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """A masked token ends what came before it, as if each turn were a response of its own."""
    found, next_value, next_advantage = torch.zeros_like(rewards), torch.zeros(len(rewards)), torch.zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):
        is_action = action_mask[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = torch.where(is_action, delta + gamma * lam * next_advantage, 0.0)
        next_value = torch.where(is_action, values[:, t], 0.0)
        found[:, t] = next_advantage
    return found, found + values


def discounted_in_holes(
    rewards: Tensor, values: Tensor, action_mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Masked tokens are steps whose value is 0."""
    within = action_mask | ((action_mask.cumsum(1) > 0) & (action_mask.flip(1).cumsum(1).flip(1) > 0))
    found, returns = real_gae(rewards, values, within, gamma, lam)
    return torch.where(action_mask, found, 0.0), torch.where(action_mask, returns, 0.0)


real_gae = advantages.gae


@pytest.mark.parametrize("wrong", [reset_at_holes, discounted_in_holes])
def test_a_hole_that_is_more_than_nothing_is_far_from_it(
    wrong: Callable[..., tuple[Tensor, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advantages, "gae", wrong)
    assert error(ListedEpisodes().gradient(0.8, 0.5), gradient_by_the_formula(0.8, 0.5)) > 0.05


def test_a_turns_reward_at_the_end_is_far_from_it() -> None:
    episodes = ListedEpisodes()
    moved = replace(episodes.trajectories, turn_rewards=torch.zeros_like(episodes.trajectories.turn_rewards))
    episodes.trajectories = moved
    assert error(episodes.gradient(0.8, 0.5), gradient_by_the_formula(0.8, 0.5)) > 0.05
