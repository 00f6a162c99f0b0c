"""One instance to verify on: a world on disk, its rewards, and the settings that all rows share."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from plumbob.configs.runs import DpoRun, KtoRun, OnlineRun
from plumbob.configs.settings.algorithms import ReinforcePlusPlus, ShapingSettings
from plumbob.configs.settings.data import LabelledDataSettings, PromptDataSettings, TokenizedPairDataSettings
from plumbob.configs.settings.models import AlignedPolicySettings, TeacherSettings
from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.configs.settings.training import DpoSettings, KtoSettings, OnlineSettings
from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.configs.settings.workers import LearnerSettings, RolloutSettings
from plumbob.verify.local_learner import open_learner
from plumbob.verify.optima.response_tree import Array, Instance, ResponseTree, seeded_rewards
from plumbob.verify.world.tiny_world import TinyWorld, response_logprobs, write_model

LORA_RANK = 32
SPREAD = 0.1
"""Of the model's initial weights: a reference that is far from uniform."""
UNREAD = "-"
"""Stands for files and models that a verification does not read."""


DISTANCE = 0.05
"""Total variation that a reached policy may be from its target, for any prompt."""
GAP = 0.02
"""Share of the way from the reference's objective to the best one that may be left."""
FITTED = 0.005
CRITIC = 0.10
"""Root mean square error of the critic, as a share of the spread of V*."""
UNSHAPED = ShapingSettings(clip=None, missing_eos_penalty=0.0)
MAX_GRAD_NORM = 0.02
"""Near the size of the last gradients: Adam remembers the first ones for a thousand steps, and would hardly move."""


class Measurement(NamedTuple):
    """Attributes: what was measured, what came out, and what it may be at most."""

    quantity: str
    value: float
    bound: float

    @property
    def holds(self) -> bool:
        return self.value <= self.bound


@dataclass(frozen=True)
class Size:
    """How large an instance is; `beta` weighs KL against rewards in [-1, 1]."""

    vocab_size: int = 4
    depth: int = 3
    beta: float = 0.4
    num_prompts: int = 3

    @property
    def world(self) -> TinyWorld:
        """Prompts of two different tokens: a RoPE model without BOS cannot tell `1`, `11` and `111` apart."""
        words = self.vocab_size - 1
        prompts = tuple((i % words + 1, (i + 1) % words + 1) for i in range(self.num_prompts))
        return TinyWorld(ResponseTree(self.vocab_size, self.depth), prompts)


@dataclass(frozen=True, eq=False)
class Problem:
    """A size and a seed, written to disk.

    Attributes:
        model: folder of the policy as it begins.
        rewards: r(x, y), uniform in [-1, 1], [P, K].
    """

    size: Size
    seed: int
    world: TinyWorld
    model: Path
    rewards: Array

    @property
    def policy(self) -> AlignedPolicySettings:
        return AlignedPolicySettings(model=str(self.model), tuning=LoraTuning(rank=LORA_RANK, alpha=2.0 * LORA_RANK))

    def online_run(
        self, online: OnlineSettings, teachers: tuple[TeacherSettings, ...] = (), teachers_by: str | None = None
    ) -> OnlineRun:
        return OnlineRun(
            seed=self.seed,
            data=PromptDataSettings(prompts=UNREAD),
            policy=self.policy,
            reward=None if teachers else ScorerSettings(model=UNREAD),
            teachers=teachers,
            teachers_by=teachers_by,
            rollout=RolloutSettings(max_tokens=self.size.depth),
            learner=LearnerSettings(zero_stage=0, micro_batch_size=1024),
            online=online,
        )

    def dpo_run(self, dpo: DpoSettings) -> DpoRun:
        return DpoRun(
            seed=self.seed,
            data=TokenizedPairDataSettings(pairs=UNREAD),
            policy=self.policy,
            learner=LearnerSettings(zero_stage=0, micro_batch_size=1024),
            dpo=dpo,
        )

    def kto_run(self, kto: KtoSettings) -> KtoRun:
        return KtoRun(
            seed=self.seed,
            data=LabelledDataSettings(labelled=UNREAD),
            policy=self.policy,
            learner=LearnerSettings(zero_stage=0, micro_batch_size=1024),
            kto=kto,
        )

    def instance(self) -> Instance:
        """With the reference's exact probabilities: those of the model as it begins, which no training has touched."""
        begun = open_learner(self.online_run(OnlineSettings(estimator=ReinforcePlusPlus())))
        reference = response_logprobs(self.world, begun.compute, "policy")
        return Instance(self.world.tree, self.world.prompts, reference, self.rewards, self.size.beta)


def make_problem(size: Size, seed: int, folder: Path) -> Problem:
    """Write the model of one instance below `folder`."""
    world = size.world
    model = write_model(folder / f"model-{seed}", world, seed, SPREAD)
    return Problem(size, seed, world, model, seeded_rewards(world.tree, size.num_prompts, seed))
