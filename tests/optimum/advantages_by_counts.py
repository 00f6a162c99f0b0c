"""What each estimator's advantages are, by definition, on a listed step: response k stands counts[p, k] times in it.

Numpy alone, from the papers' formulas: nothing of the trainers is in here. All responses to a prompt are one group.
"""

from typing import assert_never

import numpy as np

from plumbob.configs.settings.algorithms import (
    DrGrpo,
    Estimator,
    Gae,
    Grpo,
    ReinforcePlusPlus,
    ReinforcePlusPlusBaseline,
    Rloo,
)
from plumbob.verify.optima.online_optima import returns_to_go
from plumbob.verify.optima.response_tree import Array, Instance


def advantages_of(estimator: Estimator, problem: Instance, policy: Array, counts: Array, values: Array) -> Array:
    """Advantages [P, K, T] with k1 in the reward.

    Args:
        policy: log pi [P, S, V].
        values: the critic's [P, S]; read for `Gae` alone.
    """
    tree = problem.tree
    tokens = counts[..., None] * tree.mask
    whole = returns_to_go(problem, policy, 1.0)[..., :1] * tree.mask
    size = counts.sum(-1)[:, None, None]
    centred = (whole - _mean(whole[..., :1], counts[..., None], axis=(1, 2))) * tree.mask
    match estimator:
        case Gae():
            return _whitened(_gae(estimator, problem, policy, values), tokens)
        case ReinforcePlusPlus():
            return _whitened(returns_to_go(problem, policy, estimator.gamma), tokens)
        case ReinforcePlusPlusBaseline():
            spread: Array = np.sqrt(_mean((centred - _mean(centred, tokens)) ** 2, tokens))
            return centred / spread
        case Rloo():
            return centred * size / (size - 1)
        case Grpo():
            squares = (counts[..., None] * centred[..., :1] ** 2).sum(axis=(1, 2), keepdims=True)
            return centred / (np.sqrt(squares / (size - 1)) + estimator.std_eps)
        case DrGrpo():
            return centred
        case _:
            assert_never(estimator)


def _mean(x: Array, weights: Array, axis: tuple[int, ...] | None = None) -> Array:
    mean: Array = (x * weights).sum(axis, keepdims=True) / (weights * np.ones_like(x)).sum(axis, keepdims=True)
    return mean


def _whitened(x: Array, tokens: Array) -> Array:
    centred = x - _mean(x, tokens)
    whitened: Array = centred / np.sqrt(_mean(centred**2, tokens))
    return whitened


def _gae(estimator: Gae, problem: Instance, policy: Array, values: Array) -> Array:
    """sum over l of (gamma lambda)^l delta_{t+l}, delta_t = r_t + gamma V(s_{t+1}) - V(s_t), V = 0 behind the end."""
    tree = problem.tree
    at = tree.along(np.repeat(values[..., None], tree.vocab_size, axis=-1))
    behind = np.concatenate([at[..., 1:], np.zeros((*at.shape[:-1], 1))], axis=-1)
    to_go = returns_to_go(problem, policy, 1.0)
    rewards = to_go - np.concatenate([to_go[..., 1:], np.zeros((*to_go.shape[:-1], 1))], axis=-1) * tree.mask
    deltas = (rewards + estimator.gamma * behind - at) * tree.mask
    advantages = np.zeros_like(deltas)
    running = np.zeros(deltas.shape[:-1])
    for t in reversed(range(tree.depth)):
        running = deltas[..., t] + estimator.gamma * estimator.lam * running
        advantages[..., t] = running
    return advantages * tree.mask
