"""Losses of preference pairs: pure functions of the log-probabilities of whole responses.

Tensors are [B], or [B, 2] with the chosen response in column 0 and the rejected one in column 1. A loss is one number a
row; `preference_loss` sums them, and the caller divides by the rows of the whole optimizer step. A margin is the reward
of the chosen response less that of the rejected one; u is log(pi / pi_ref) of a whole response.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple, assert_never

import torch
from torch import Tensor
from torch.nn import functional as F

from plumbob.configs.settings.offline_objectives import (
    ConservativeDpoLoss,
    DpoLoss,
    FunctionLoss,
    HingeLoss,
    IpoLoss,
    OrpoLoss,
    PreferenceLoss,
    RobustDpoLoss,
    SimpoLoss,
    SppoLoss,
)
from plumbob.trainers.algorithms.function_loss import check_loss, function_loss, load_loss

MAX_MEAN_LOGPROB = -1e-6
"""Where a token's probability counts as 1 in its odds, which are finite so: float32 knows no 1 - 1e-8."""


class PreferenceRows(NamedTuple):
    """Attributes: of each pair.

    loss: [B].
    rewards: [B, 2], without gradient: what the loss compares, so that each loss has its own margin and accuracy.
    parts: name -> [B], without gradient: terms of the loss that are watched apart.
    """

    loss: Tensor
    rewards: Tensor
    parts: Mapping[str, Tensor]


class PreferenceSums(NamedTuple):
    """Attributes: scalars, sums over the pairs, of which only `loss` has a gradient; accuracy counts a tie one half."""

    loss: Tensor
    statistics: Mapping[str, Tensor]


def preference_loss(
    settings: PreferenceLoss,
    logprobs: Tensor,
    ref_logprobs: Tensor,
    num_tokens: Tensor,
    sequence_means: Tensor,
    is_pair: Tensor | None = None,
) -> PreferenceSums:
    """Sums of `preference_rows`, with what is watched: accuracy, margin and rewards by the loss's own measure.

    Args:
        is_pair: bool [B], False where a row stands for no pair and is in no sum; None where every row is one.
    """
    rows = preference_rows(settings, logprobs, ref_logprobs, num_tokens, sequence_means)
    margins = margins_of(rows.rewards)
    watched = {
        "loss": rows.loss.detach(),
        "accuracy": (margins.sign() + 1) / 2,
        "margin": margins,
        "chosen_reward": rows.rewards[:, 0],
        "rejected_reward": rows.rewards[:, 1],
        **rows.parts,
    }
    weights = torch.ones_like(rows.loss) if is_pair is None else is_pair.float()
    return PreferenceSums(
        (weights * rows.loss).sum(), {name: (weights * values).sum() for name, values in watched.items()}
    )


def preference_rows(
    settings: PreferenceLoss, logprobs: Tensor, ref_logprobs: Tensor, num_tokens: Tensor, sequence_means: Tensor
) -> PreferenceRows:
    """The loss and the rewards of each pair.

    Args:
        logprobs: log pi of each whole response, summed over its tokens, [B, 2]; it and `sequence_means` have a
            gradient.
        ref_logprobs: the same under pi_ref; a reference-free loss does not read it.
        num_tokens: of each response, [B, 2]; a response without a token has the mean 0.
        sequence_means: log pi of prompt and chosen response, [B], over the tokens that such a sequence of the step has
            on average: their mean over the step's rows is its mean over tokens. ORPO's likelihood of a sequence alone
            reads it.
    """
    log_ratios, num_tokens = logprobs - ref_logprobs, num_tokens.clamp(min=1)
    parts: dict[str, Tensor] = {}
    match settings:
        case DpoLoss():
            rewards = settings.beta * (log_ratios / num_tokens if settings.per_token else log_ratios)
            loss = dpo(margins_of(rewards))
        case ConservativeDpoLoss():
            rewards = settings.beta * log_ratios
            loss = conservative_dpo(margins_of(rewards), settings.flip_rate)
        case RobustDpoLoss():
            rewards = settings.beta * log_ratios
            loss = robust_dpo(margins_of(rewards), settings.flip_rate)
        case IpoLoss():
            compared = log_ratios / num_tokens if settings.per_token else log_ratios
            rewards = settings.tau * compared
            loss = ipo(margins_of(compared), settings.tau)
        case HingeLoss():
            rewards = settings.beta * log_ratios
            loss = hinge(margins_of(rewards))
        case OrpoLoss():
            means = logprobs / num_tokens
            rewards = log_odds(means)
            likelihood = sequence_means if settings.likelihood == "sequence" else means[:, 0]
            parts = {"nll": -likelihood.detach()}
            loss = orpo(means, likelihood, settings.weight)
        case SimpoLoss():
            rewards = settings.beta * logprobs / num_tokens
            loss = simpo(margins_of(rewards), settings.margin)
        case SppoLoss():
            rewards = settings.beta * log_ratios
            loss = sppo(log_ratios, settings.beta)
        case FunctionLoss():
            rewards = log_ratios
            loss = function_loss(settings.function, logprobs, ref_logprobs)
        case _:
            assert_never(settings)
    return PreferenceRows(loss, rewards.detach(), parts)


def check_users_loss(settings: PreferenceLoss) -> None:
    """Try a loss of the user's before anything starts. Raises UserError, as `function_loss.check_loss`."""
    if isinstance(settings, FunctionLoss):
        check_loss(settings.function)


def load_users_loss(settings: PreferenceLoss) -> None:
    """Load a loss of the user's as it is now, for a learner. Raises UserError, as `function_loss.load_loss`."""
    if isinstance(settings, FunctionLoss):
        load_loss(settings.function)


def margins_of(rewards: Tensor) -> Tensor:
    """Reward of the chosen response less that of the rejected one, [B, 2] -> [B]."""
    return rewards[:, 0] - rewards[:, 1]


def dpo(margins: Tensor) -> Tensor:
    """-log sigmoid(h), h the margin of the rewards beta u (Rafailov et al. 2023, arXiv 2305.18290, equation 7).

    Length-normalised, of beta u / |y| (Lambert et al. 2024, Tulu 3, arXiv 2411.15124, section 5).
    """
    return -F.logsigmoid(margins)


def conservative_dpo(margins: Tensor, flip_rate: float) -> Tensor:
    """-(1 - e) log sigmoid(h) - e log sigmoid(-h): the label is wrong with probability e, h as for DPO.

    Mitchell 2023, "A note on DPO with noisy preferences and relationship to IPO", equation 3. Least where
    sigmoid(h) = 1 - e.
    """
    return (1 - flip_rate) * dpo(margins) + flip_rate * dpo(-margins)


def robust_dpo(margins: Tensor, flip_rate: float) -> Tensor:
    """(-(1 - e) log sigmoid(h) + e log sigmoid(-h)) / (1 - 2e), h as for DPO.

    Its mean over labels flipped at the rate e is DPO's loss of the true ones (Chowdhury et al. 2024, arXiv 2403.00409).
    It is not bounded below.
    """
    return ((1 - flip_rate) * dpo(margins) - flip_rate * dpo(-margins)) / (1 - 2 * flip_rate)


def ipo(margins: Tensor, tau: float) -> Tensor:
    """(h - 1 / (2 tau))^2, h the margin of u itself (Azar et al. 2023, arXiv 2310.12036, equation 17)."""
    return (margins - 1 / (2 * tau)).square()


def hinge(margins: Tensor) -> Tensor:
    """max(0, 1 - h), h as for DPO.

    SLiC-HF (Zhao et al. 2023, arXiv 2305.10425), on log-ratios as in Liu et al. 2023, arXiv 2309.06657.
    """
    return F.relu(1 - margins)


def orpo(mean_logprobs: Tensor, likelihood: Tensor, weight: float) -> Tensor:
    """-l - weight log sigmoid(log odds(chosen) - log odds(rejected)), of m = log pi(y | x) / |y|, [B, 2] -> [B].

    Hong et al. 2024, arXiv 2403.07691, equations 6 and 7. `likelihood` [B] is l: the paper's is m(chosen). The authors'
    code and TRL take log pi(x, chosen) over the prompt's tokens too, and of a whole batch the mean over its N tokens
    but each sequence's first: l = log pi(x, chosen) B / N, whose mean over the B rows that is.
    """
    return weight * dpo(margins_of(log_odds(mean_logprobs))) - likelihood


def log_odds(mean_logprobs: Tensor) -> Tensor:
    """log(p / (1 - p)) with p = exp(mean log-prob of a token) (arXiv 2403.07691, equation 4); finite for p = 1 too."""
    bounded = mean_logprobs.clamp(max=MAX_MEAN_LOGPROB)
    # log(1 - exp(m)) by the form that keeps digits (Maechler 2012, "Accurately computing log(1 - exp(-|a|))").
    is_likely = bounded > -math.log(2)
    near_one = torch.where(is_likely, bounded, -1.0)
    far_from_one = torch.where(is_likely, -1.0, bounded)
    return bounded - torch.where(is_likely, (-near_one.expm1()).log(), (-far_from_one.exp()).log1p())


def simpo(margins: Tensor, target: float) -> Tensor:
    """-log sigmoid(h - gamma), h the margin of the rewards beta log pi / |y|, length-normalised.

    Meng et al. 2024, arXiv 2405.14734, equation 6. gamma is in units of the reward, so that what others call
    `gamma_beta_ratio` is gamma / beta.
    """
    return -F.logsigmoid(margins - target)


def sppo(log_ratios: Tensor, beta: float) -> Tensor:
    """(u(chosen) - 1 / (2 beta))^2 + (u(rejected) + 1 / (2 beta))^2, [B, 2] -> [B].

    Wu et al. 2024, arXiv 2405.00675, equation 4.7 with eta = 1 / beta, where the chosen response wins for certain.
    """
    target = 1 / (2 * beta)
    return (log_ratios[:, 0] - target).square() + (log_ratios[:, 1] + target).square()
