"""Online rows of policy surrogates, and of what DAPO does about responses that are cut or nearly so."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from plumbob.configs.settings.algorithms import Cispo, Clipped, DrGrpo, Gspo, OverlongPenaltySettings, Rloo
from plumbob.verify.optima.online_optima import kl_in_loss_optimum, overlong_penalty, summed_ratio_optimum
from plumbob.verify.optima.planted_bugs import OnlineTarget, greedy
from plumbob.verify.optima.response_tree import Array, Instance
from plumbob.verify.rows.online_rows import GROUP, WEIGHED, OnlineRow, best, k_in_loss
from plumbob.verify.world.problem import UNSHAPED, Size

TWO_UPDATES = "two updates a step"
"""So that the second begins where ratios are not 1."""
OVERLONG = OverlongPenaltySettings(cache_tokens=2, penalty=0.5)
"""Of responses of at most 3 tokens those of 2 pay 1/4, those of 3 pay 1/2."""


def unsolved(*names: str) -> Mapping[str, OnlineTarget | None]:
    """Bugs that leave the fixed point, but not the way to it: most show only where a ratio is not 1."""
    return dict.fromkeys(names)


def penalised(target: OnlineTarget, cache_tokens: int) -> OnlineTarget:
    """Of the rewards less the soft overlong penalty."""

    def solved(instance: Instance) -> Array:
        share = overlong_penalty(instance.tree.num_tokens, instance.tree.depth, cache_tokens)
        return target(replace(instance, rewards=instance.rewards - OVERLONG.penalty * share))

    return solved


def cut_off(instance: Instance) -> Array:
    """Where a penalty leads that is all or nothing, at the limit."""
    at_limit = instance.tree.num_tokens >= instance.tree.depth
    return best(replace(instance, rewards=instance.rewards - OVERLONG.penalty * at_limit))


def greedy_given_end(instance: Instance) -> Array:
    return greedy(replace(instance, rewards=np.where(instance.tree.ends, instance.rewards, -np.inf)))


CLIP_HIGHER_ROW = OnlineRow(
    "clip-higher (DAPO)",
    f"RLOO, ratios from 0.8 to 1.28, {TWO_UPDATES}, k1 in the reward, 40 responses",
    Rloo(),
    best,
    group_size=GROUP,
    num_steps=160,
    num_minibatches=2,
    policy_loss=Clipped(clip_range=0.2, clip_range_high=0.28),
    own_bugs={**WEIGHED, **unsolved("one clip range", "clip ranges exchanged")},
)
GSPO_ROW = OnlineRow(
    "GSPO",
    f"Dr. GRPO's advantages, {TWO_UPDATES}, k2 in the loss, groups of 4",
    DrGrpo(),
    lambda instance: kl_in_loss_optimum(instance, "k2", 3 / 4, length_weighted=True),
    k_in_loss(Size(), "k2"),
    group_size=4,
    num_steps=300,
    num_minibatches=2,
    learning_rate=5e-3,
    num_samples=504,
    loss_mean="response",
    policy_loss=Gspo(clip_range=0.05, clip_range_high=0.07),
    own_bugs={
        "a response's ratio summed over its tokens": lambda instance: summed_ratio_optimum(instance, 3 / 4),
        "tokens weigh the same": lambda instance: kl_in_loss_optimum(instance, "k2", 3 / 4),
        **unsolved("tokens clipped one by one", "a ratio that is not length-normalised"),
    },
)
CISPO_ROW = OnlineRow(
    "CISPO",
    f"RLOO, weights up to 1.1, {TWO_UPDATES}, k1 in the reward, 40 responses",
    Rloo(),
    best,
    group_size=GROUP,
    num_steps=240,
    num_minibatches=2,
    policy_loss=Cispo(cap=1.1),
    own_bugs={
        **WEIGHED,
        **unsolved("a weight with a gradient", "clipped tokens left out", "a weight without a bound"),
    },
)
MASKED_ROW = OnlineRow(
    "cut responses left out (DAPO)",
    "RLOO, k1 in the reward, 13 of 40 responses end: these, given that one does",
    Rloo(),
    best,
    group_size=GROUP,
    num_steps=240,
    mask_truncated=True,
    own_bugs={
        **WEIGHED,
        "temperature 1.1": None,
        "the wrong reference": greedy_given_end,
        "cut responses learnt from": best,
        "cut responses in the baseline": None,
    },
)
OVERLONG_ROW = OnlineRow(
    "soft overlong penalty (DAPO)",
    "RLOO, k1 in the reward, 40 responses, of which those of 2 tokens pay 1/4 and of 3 pay 1/2",
    Rloo(),
    penalised(best, OVERLONG.cache_tokens),
    group_size=GROUP,
    num_steps=240,
    shaping=UNSHAPED.model_copy(update={"overlong_penalty": OVERLONG}),
    own_bugs={
        "responses weigh the same": penalised(best, OVERLONG.cache_tokens),
        "the wrong reference": penalised(greedy, OVERLONG.cache_tokens),
        "a penalty from the first token on": penalised(best, Size().depth),
        "a penalty that is all or nothing": cut_off,
    },
)
SURROGATE_ROWS = (CLIP_HIGHER_ROW, GSPO_ROW, CISPO_ROW, MASKED_ROW, OVERLONG_ROW)
