"""One step's gradient of the online trainer against the enumerated one: catches what total variation is too coarse for.

The step lists every response as often as its probability says, so that the two agree but for float32. A trainer's error
of a few percent in beta, gamma, temperature, mask or weights shows in full, where the policy that it leads to may be
nearly the right one.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.algorithms import Gae
from plumbob.reward.scorer import Score
from plumbob.trainers.online.collection.collector import StepResponses
from plumbob.trainers.online.objective import forward_actions
from plumbob.trainers.online.online_input import OnlineInput
from plumbob.trainers.online.online_loop import OnlineState, learn
from plumbob.verify.local_learner import OneRank
from plumbob.verify.optima.online_optima import kl_slope, overlong_penalty, step_gradient
from plumbob.verify.optima.response_tree import EOS, Array, Instance
from plumbob.verify.training.gradients import gradient_of
from plumbob.verify.training.train_online import Draws, NullRecorder, encoded_prompts
from plumbob.verify.world.tiny_world import TinyWorld, every_response, response_logprobs, state_values
from tests.optimum.advantages_by_counts import advantages_of


def listed_counts(policy: Array, num_responses: int) -> NDArray[np.int64]:
    """How often each response is in a step of `num_responses` to each prompt, in proportion to exp(policy) [P, K]."""
    shares = num_responses * np.exp(policy)
    counts = np.floor(shares).astype(np.int64)
    for row, share in zip(counts, shares, strict=True):
        missing = num_responses - row.sum()
        row[np.argsort(row - share)[:missing]] += 1
    return counts


def listed_step(
    world: TinyWorld, rewards: Array, counts: NDArray[np.int64], learners: OneRank, version: int
) -> StepResponses:
    """Every response as often as `counts` [P, K] says; those to one prompt are one group."""
    draws = Draws(world, rewards, int(counts[0].sum()))
    tokens = learners.compute(every_response(world), "policy", forward_actions)
    rollouts, scores = [], []
    for row, (prompt, response) in enumerate(world.pairs):
        for index in range(counts[prompt, response]):
            rollouts.append(draws.rollout(draws.request(prompt, str(prompt), index), response, tokens[row], version))
            scores.append(Score(float(rewards[prompt, response]), {}))
    return StepResponses(tuple(rollouts), tuple(scores), (), 1, 0)


def trainer_gradient(
    run: OnlineRun, world: TinyWorld, learners: OneRank, responses: StepResponses
) -> dict[str, Tensor]:
    """Gradient of the policy's parameters in one step of the trainer, read from what it does to Adam's first moment.

    The weights stay: the step's learning rate is 0. `run` must not clip gradients.
    """
    state = OnlineState(run, OnlineInput(encoded_prompts(world), EOS, ()))
    state.step = int(responses.rollouts[0].versions[0])
    record: Any = NullRecorder()
    return gradient_of(learners, lambda: learn(run, EOS, responses, state, learners, record))


def enumerated_gradient(
    run: OnlineRun, instance: Instance, world: TinyWorld, learners: OneRank, counts: Array
) -> Array:
    """Gradient of the step's loss by next-token logits, [P, S, V], from the papers' formulas."""
    policy = policy_of(world, learners)
    advantages = enumerated_advantages(run, instance, world, learners, counts)
    return gradient_with(run, instance, policy, advantages, counts)


def policy_of(world: TinyWorld, learners: OneRank) -> Array:
    """log pi of every next token, [P, S, V]."""
    return world.tree.next_token_logprobs(response_logprobs(world, learners.compute, "policy"))


def learnt(run: OnlineRun, instance: Instance, counts: Array) -> Array:
    """How often each response is in the step and learnt from, [P, K]."""
    return counts * instance.tree.ends if run.online.mask_truncated else counts


def enumerated_advantages(
    run: OnlineRun, instance: Instance, world: TinyWorld, learners: OneRank, counts: Array
) -> Array:
    """Of each token of each response, [P, K, T]; the policy is that which has sampled the step."""
    tree, online = instance.tree, run.online
    overlong = online.shaping.overlong_penalty
    paid = 0.0
    if overlong is not None:
        paid = overlong.penalty * overlong_penalty(tree.num_tokens, tree.depth, overlong.cache_tokens)
    beta = 0.0 if online.kl.place == "loss" else instance.beta
    rewarded = Instance(tree, instance.prompts, instance.reference, instance.rewards - paid, beta)
    has_critic = isinstance(online.estimator, Gae)
    values = state_values(world, learners.compute) if has_critic else np.zeros((len(world.prompts), len(tree.states)))
    policy = policy_of(world, learners)
    return advantages_of(online.estimator, rewarded, policy, learnt(run, instance, counts), values)


def gradient_with(run: OnlineRun, instance: Instance, policy: Array, pushes: Array, counts: Array) -> Array:
    """Gradient by next-token logits, [P, S, V], of tokens that are pushed so, and of the KL where it is in the loss.

    Args:
        policy: log pi [P, S, V] as it is now.
        pushes: what multiplies grad log pi of each token, [P, K, T].
    """
    tree, online = instance.tree, run.online
    if online.kl.place == "loss":
        assert online.kl.estimate != "k1"
        pushes = pushes - instance.beta * kl_slope(tree.along(policy - instance.reference_policy), online.kl.estimate)
    return step_gradient(instance, policy, pushes, learnt(run, instance, counts), online.loss_mean == "response")
