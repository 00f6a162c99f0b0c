"""Online rows of objectives that rank a group of responses: the best alone is learnt, or the best against the worst."""

from dataclasses import replace

from plumbob.configs.settings.algorithms import BestOfN, FixedKl, OnlineDpo
from plumbob.configs.settings.offline_objectives import DpoLoss, IpoLoss
from plumbob.verify.optima.offline_optima import length_tilted
from plumbob.verify.optima.planted_bugs import PairTarget, greedy
from plumbob.verify.optima.ranked_optima import ipo_of_ranked, ranked_pairs_optimum
from plumbob.verify.optima.response_tree import Array, Instance
from plumbob.verify.rows.online_rows import SHORT, WEIGHED, OnlineRow, best

PAIRS_OF = 4
"""Responses of a group, the best and the worst of which are a pair."""


def ipo_fixed_point(instance: Instance, group_size: int = PAIRS_OF) -> Array:
    """Of summed log-ratios with tau as the instance's beta, ranked by reward alone."""
    return ranked_pairs_optimum(instance, ipo_of_ranked(instance.beta), group_size)


def averaged_ipo_fixed_point(instance: Instance) -> Array:
    """Of log-ratios that are averaged over a response's tokens."""
    summed = ipo_of_ranked(instance.beta)

    def target(reference: Array, wins: Array, num_tokens: Array) -> Array:
        return length_tilted(reference, summed(0 * reference, wins, num_tokens), num_tokens)

    averaged: PairTarget = target
    return ranked_pairs_optimum(instance, averaged, PAIRS_OF)


RAFT_ROW = OnlineRow(
    "RAFT",
    "best of 2, k1 in the reward, 13 responses",
    BestOfN(),
    best,
    size=SHORT,
    group_size=2,
    num_steps=240,
    learning_rate=5e-3,
    own_bugs={
        **WEIGHED,
        "ranked by reward alone": greedy,
        "the whole group learnt": lambda instance: instance.reference,
        "the worst learnt": None,
    },
)
ONLINE_DPO_ROW = OnlineRow(
    "online DPO",
    f"best against worst of {PAIRS_OF}, k1 in the reward, 13 responses",
    OnlineDpo(loss=DpoLoss(beta=SHORT.beta)),
    best,
    size=SHORT,
    group_size=PAIRS_OF,
    num_samples=504,
    num_steps=240,
    learning_rate=5e-3,
    own_bugs={
        "ranked by reward alone": greedy,
        "the loss's beta 10% too large": best,
        "the policy as the loss's reference": best,
        "any two of a group": best,
        "chosen and rejected exchanged": None,
    },
)
ONLINE_IPO_ROW = OnlineRow(
    "online DPO",
    f"IPO's loss, best against worst of {PAIRS_OF}, ranked by reward alone, 13 responses",
    OnlineDpo(loss=IpoLoss(tau=SHORT.beta)),
    ipo_fixed_point,
    FixedKl(coefficient=0.0),
    SHORT,
    group_size=PAIRS_OF,
    num_samples=504,
    num_steps=300,
    own_bugs={
        "per token instead of summed": averaged_ipo_fixed_point,
        "any two of a group": lambda instance: ipo_fixed_point(instance, group_size=2),
        "chosen and rejected exchanged": lambda instance: ipo_fixed_point(replace(instance, rewards=-instance.rewards)),
    },
)
RANKED_ROWS = (RAFT_ROW, ONLINE_DPO_ROW, ONLINE_IPO_ROW)
