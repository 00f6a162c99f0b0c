"""Online rows of the table: an estimator, where KL is paid for, and where the policy must end."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from plumbob.configs.settings.algorithms import (
    Clipped,
    DrGrpo,
    Estimator,
    FixedKl,
    Gae,
    Grpo,
    PolicyLoss,
    ReinforcePlusPlus,
    ReinforcePlusPlusBaseline,
    Rloo,
    ShapingSettings,
    critic_of,
)
from plumbob.configs.settings.training import OnlineSettings
from plumbob.verify.local_learner import OneRank
from plumbob.verify.optima.group_optima import group_baseline_optimum, grpo_optimum
from plumbob.verify.optima.online_optima import discounted_optimum, kl_in_loss_optimum
from plumbob.verify.optima.planted_bugs import OnlineTarget, online_bugs, weighed_returns_optimum
from plumbob.verify.optima.response_tree import Array, Instance, gap_ratio, given_end, soft_values, total_variation
from plumbob.verify.rows.bug_shift import Moved, moved
from plumbob.verify.training.fit import fitted_distance
from plumbob.verify.training.train_online import train_online
from plumbob.verify.world.problem import (
    CRITIC,
    DISTANCE,
    FITTED,
    GAP,
    MAX_GRAD_NORM,
    UNSHAPED,
    Measurement,
    Problem,
    Size,
    make_problem,
)
from plumbob.verify.world.tiny_world import response_logprobs, state_values


@dataclass(frozen=True)
class FitRow:
    """The model can be the target at all.

    Attributes:
        is_far: whether the reference must be far from the target, or reaching it would say nothing.
    """

    name: str = "the model itself"
    setting: str = "exact cross-entropy to pi*, 40 responses"
    size: Size = field(default_factory=Size)
    is_far: bool = True
    num_steps: int = 350

    def measure(self, seed: int, folder: Path) -> tuple[Measurement, ...]:
        problem = make_problem(self.size, seed, folder)
        run = problem.online_run(OnlineSettings(learning_rate=5e-3, schedule="linear", num_steps=self.num_steps))
        instance = problem.instance()
        begun = float(total_variation(instance.reference, instance.optimum).min())
        fitted = Measurement("TV", fitted_distance(run, problem.world, instance.optimum), FITTED)
        return (fitted, Measurement("-TV of the reference", -begun, -0.3)) if self.is_far else (fitted,)


@dataclass(frozen=True)
class OnlineRow:
    """Responses sampled from the policy, their reward and KL, one update after another.

    Attributes:
        target: where the expected update is zero, log-probs [P, K].
        group_size: responses to a prompt in one step that belong together.
        own_bugs: targets of bugs that not every online trainer can have, or that lead elsewhere with this one.
    """

    name: str
    setting: str
    estimator: Estimator
    target: OnlineTarget
    kl: FixedKl | None = None
    size: Size = field(default_factory=Size)
    group_size: int = 1
    num_samples: int = 510
    num_steps: int = 300
    num_minibatches: int = 1
    learning_rate: float = 3e-3
    loss_mean: Literal["token", "response"] = "token"
    policy_loss: PolicyLoss = field(default_factory=Clipped)
    shaping: ShapingSettings = UNSHAPED
    mask_truncated: bool = False
    own_bugs: Mapping[str, OnlineTarget | None] = field(default_factory=dict)

    @property
    def bug_targets(self) -> Mapping[str, OnlineTarget | None]:
        """The targets of trainers that have a planted bug, by its name."""
        return {**online_bugs(self.target), **self.own_bugs}

    def bug_shifts(self, seed: int, folder: Path) -> Moved:
        instance = make_problem(self.size, seed, folder).instance()
        return moved(lambda target: self.seen(instance, target(instance)), self.target, self.bug_targets)

    def seen(self, instance: Instance, policy: Array) -> Array:
        """What of a policy [P, K] is held to: where cut responses are not learnt from, those that end, given it."""
        return given_end(instance.tree, policy) if self.mask_truncated else policy

    def measure(self, seed: int, folder: Path) -> tuple[Measurement, ...]:
        problem = make_problem(self.size, seed, folder)
        learners = train_online(problem.online_run(self.settings()), problem.world, problem.rewards)
        instance = problem.instance()
        reached = response_logprobs(problem.world, learners.compute, "policy")
        policy, target, begun = (self.seen(instance, x) for x in (reached, self.target(instance), instance.reference))
        checks = [Measurement("TV", float(total_variation(policy, target).max()), DISTANCE)]
        if self.kl is None:
            checks.append(Measurement("gap", gap_ratio(policy, target, begun), GAP))
        if critic_of(self.estimator) is not None:
            checks.append(Measurement("critic", critic_error(problem, instance, learners), CRITIC))
        return tuple(checks)

    def settings(self) -> OnlineSettings:
        return OnlineSettings(
            learning_rate=self.learning_rate,
            schedule="linear",
            num_steps=self.num_steps,
            prompts_per_step=self.num_samples // self.group_size,
            samples_per_prompt=self.group_size,
            minibatch_size=self.num_samples // self.num_minibatches,
            max_grad_norm=MAX_GRAD_NORM,
            estimator=self.estimator,
            loss_mean=self.loss_mean,
            policy_loss=self.policy_loss,
            kl=self.kl or FixedKl(coefficient=self.size.beta),
            shaping=self.shaping,
            mask_truncated=self.mask_truncated,
        )


def critic_error(problem: Problem, instance: Instance, learners: OneRank) -> float:
    """RMS of V - V* over V*'s standard deviation, each state weighted as often as pi* passes it."""
    best = soft_values(instance)
    passed = instance.tree.collect(np.exp(instance.optimum)[..., None] * instance.tree.mask).sum(-1)
    weights = passed / passed.sum()
    spread = (weights * (best - (weights * best).sum()) ** 2).sum()
    error = (weights * (state_values(problem.world, learners.compute) - best) ** 2).sum()
    return float(np.sqrt(error / spread))


# ------------------------------------------------------------------------------------------------------------- the rows

IN_REWARD = "k1 in the reward, 40 responses"
SHORT = Size(depth=2)
ONE_TOKEN = Size(vocab_size=5, depth=1)
WIDE = Size(vocab_size=5, depth=1, beta=2.0)
GROUP = 34
SMALL_GROUP = 8


def k_in_loss(size: Size, estimate: str) -> FixedKl:
    return FixedKl(coefficient=size.beta, place="loss", estimate=estimate)


def best(instance: Instance) -> Array:
    return instance.optimum


WEIGHED: Mapping[str, OnlineTarget] = {"responses weigh the same": best}
"""With a baseline of the prompt or the state no advantage is left at pi*, whatever it weighs."""
DISCOUNTED: Mapping[str, OnlineTarget] = {"gamma 0.95": lambda instance: discounted_optimum(instance, 0.95)}

CRITIC_FREE_ROWS = (
    OnlineRow("RLOO", IN_REWARD, Rloo(), best, group_size=GROUP, num_steps=240, own_bugs=WEIGHED),
    OnlineRow(
        "REINFORCE++",
        IN_REWARD,
        ReinforcePlusPlus(),
        best,
        own_bugs={**DISCOUNTED, "responses weigh the same": weighed_returns_optimum},
    ),
    OnlineRow(
        "REINFORCE++ with group baseline",
        IN_REWARD,
        ReinforcePlusPlusBaseline(),
        best,
        group_size=GROUP,
        num_steps=240,
        own_bugs=WEIGHED,
    ),
    OnlineRow("GRPO", f"groups of 170, {IN_REWARD}", Grpo(), best, group_size=170, own_bugs=WEIGHED),
    OnlineRow("Dr. GRPO", IN_REWARD, DrGrpo(), best, group_size=GROUP, num_steps=240, own_bugs=WEIGHED),
)
PPO_ROW = OnlineRow(
    "PPO",
    f"lambda 0.95, two updates a step, {IN_REWARD}",
    Gae(value_learning_rate=3e-3, value_clip_range=None),
    best,
    num_steps=200,
    num_minibatches=2,
    own_bugs={**DISCOUNTED, **WEIGHED},
)
LOSS_ROWS = (
    OnlineRow(
        "RLOO",
        "k2 in the loss, 40 responses",
        Rloo(),
        lambda instance: kl_in_loss_optimum(instance, "k2"),
        k_in_loss(Size(), "k2"),
        group_size=GROUP,
        num_steps=400,
        learning_rate=5e-3,
        own_bugs={
            "responses weigh the same": lambda instance: kl_in_loss_optimum(instance, "k2", length_weighted=True)
        },
    ),
    OnlineRow(
        "Dr. GRPO",
        "k2 in the loss, groups of 4, responses weigh the same",
        DrGrpo(),
        lambda instance: kl_in_loss_optimum(instance, "k2", 3 / 4, length_weighted=True),
        k_in_loss(Size(), "k2"),
        group_size=4,
        num_steps=400,
        learning_rate=5e-3,
        num_samples=504,
        loss_mean="response",
        own_bugs={"tokens weigh the same": lambda instance: kl_in_loss_optimum(instance, "k2", 3 / 4)},
    ),
    OnlineRow(
        "GRPO",
        "k3 in the loss, one token, groups of 8",
        Grpo(),
        lambda instance: grpo_optimum(instance, "k3", SMALL_GROUP, 1, Grpo().std_eps),
        k_in_loss(ONE_TOKEN, "k3"),
        ONE_TOKEN,
        group_size=SMALL_GROUP,
        num_samples=504,
        num_steps=200,
    ),
    OnlineRow(
        "GRPO",
        "k3 in the loss, 13 responses, groups of 4, responses weigh the same",
        Grpo(),
        lambda instance: grpo_optimum(instance, "k3", 4, 1, Grpo().std_eps, length_weighted=True),
        k_in_loss(SHORT, "k3"),
        SHORT,
        group_size=4,
        num_samples=504,
        loss_mean="response",
        own_bugs={
            "tokens weigh the same": lambda instance: grpo_optimum(instance, "k3", 4, 1, Grpo().std_eps),
        },
    ),
    OnlineRow(
        "REINFORCE++ with group baseline",
        "k2 in the loss, beta 2, one token",
        ReinforcePlusPlusBaseline(),
        lambda instance: group_baseline_optimum(instance, SMALL_GROUP),
        k_in_loss(WIDE, "k2"),
        WIDE,
        group_size=SMALL_GROUP,
        num_samples=504,
        num_steps=200,
    ),
)
SLOW_ROW = OnlineRow(
    "RLOO",
    "k1 in the reward, 400 responses",
    Rloo(),
    best,
    size=Size(vocab_size=8),
    group_size=GROUP,
    num_steps=400,
    own_bugs=WEIGHED,
)
FIT_ROWS = (
    FitRow(),
    FitRow(setting="exact cross-entropy to pi*, 400 responses", size=Size(vocab_size=8)),
    FitRow(setting="exact cross-entropy to pi*, 13 responses", size=SHORT, num_steps=150),
    FitRow(setting="exact cross-entropy to pi*, one token", size=ONE_TOKEN, is_far=False, num_steps=150),
)
ONLINE_ROWS = (*FIT_ROWS, PPO_ROW, *CRITIC_FREE_ROWS, *LOSS_ROWS, SLOW_ROW)
