"""Surrogates where ratios are not 1: what pushes each token, by the papers, and bugs that show only there."""

from collections.abc import Mapping
from typing import Any, assert_never

import numpy as np
import torch
from torch import Tensor

from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.algorithms import Cispo, Clipped, Gspo, PolicyLoss
from plumbob.verify.optima.response_tree import Array, ResponseTree
from tests.optimum.planted import Bug

LOSSES = "plumbob.trainers.algorithms.policy_losses"


def with_online(run: OnlineRun, **changes: Any) -> OnlineRun:
    return run.model_copy(update={"online": run.online.model_copy(update=changes)})


def surrogate_pushes(settings: PolicyLoss, tree: ResponseTree, policy: Array, old: Array, advantages: Array) -> Array:
    """What multiplies grad log pi of each token of each response, [P, K, T].

    Args:
        policy, old: log pi [P, S, V], now and as the update began.
        advantages: [P, K, T].
    """
    log_ratios = tree.along(policy - old)
    match settings:
        case Clipped():
            assert settings.dual_clip is None
            return _clipped(np.exp(log_ratios), advantages, settings.clip_range, settings.high)
        case Gspo():
            whole = np.exp(log_ratios.sum(-1) / tree.num_tokens)[..., None]
            return _clipped(whole, advantages, settings.clip_range, settings.clip_range_high)
        case Cispo():
            return np.minimum(np.exp(log_ratios), settings.cap) * advantages
        case _:
            assert_never(settings)


def _clipped(ratios: Array, advantages: Array, low: float, high: float) -> Array:
    """rho A, and nothing where rho has gone past its bound the way that A pushes it."""
    past = np.where(advantages > 0, ratios > 1 + high, ratios < 1 - low)
    return np.where(past, 0.0, ratios * advantages)


def with_surrogate(surrogate: PolicyLoss) -> Bug:
    return Bug(lambda run: with_online(run, policy_loss=surrogate))


def same_range(run: OnlineRun) -> OnlineRun:
    return with_online(run, policy_loss=run.online.policy_loss.model_copy(update={"clip_range_high": None}))


def exchanged(run: OnlineRun) -> OnlineRun:
    own = run.online.policy_loss
    assert isinstance(own, Clipped)
    return with_online(run, policy_loss=Clipped(clip_range=own.high, clip_range_high=own.clip_range))


def token_wise(run: OnlineRun) -> OnlineRun:
    own = run.online.policy_loss
    assert isinstance(own, Gspo)
    return with_online(run, policy_loss=Clipped(clip_range=own.clip_range, clip_range_high=own.clip_range_high))


def dropped(run: OnlineRun) -> OnlineRun:
    own = run.online.policy_loss
    assert isinstance(own, Cispo)
    return with_online(run, policy_loss=Clipped(clip_range=own.cap - 1))


def whole_ratio(log_ratio: Tensor, action_mask: Tensor) -> Tensor:
    """pi(y) / pi_old(y), without the root."""
    whole = log_ratio.sum(dim=1, keepdim=True).detach()
    return torch.exp(whole + log_ratio - log_ratio.detach())


RATIO_BUGS: Mapping[str, Bug] = {
    "one clip range": Bug(same_range),
    "clip ranges exchanged": Bug(exchanged),
    "tokens clipped one by one": Bug(token_wise),
    "a ratio that is not length-normalised": Bug(replaced=(f"{LOSSES}.response_ratio", whole_ratio)),
    "clipped tokens left out": Bug(dropped),
    "a weight without a bound": with_surrogate(Cispo(cap=1e6)),
}
