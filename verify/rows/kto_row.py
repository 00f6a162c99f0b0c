"""The row of KTO, which has no optimum inside: its direction and its gradient are what can be measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from plumbob.configs.settings.training import KtoSettings
from plumbob.verify.local_learner import open_learner
from plumbob.verify.rows.bug_shift import Moved
from plumbob.verify.training.gradients import pulled_back, relative_error
from plumbob.verify.training.kto_gradients import NO_CLIP, NO_RATE, kto_enumerated_gradient, kto_step_gradient
from plumbob.verify.training.train_offline import Labels, train_labelled
from plumbob.verify.world.problem import Measurement, Size, make_problem
from plumbob.verify.world.tiny_world import response_logprobs

BETA = 0.4
GRADIENT = 1e-3
NUM_LABELS = 8
KTO_BUGS = dict.fromkeys(
    (
        "beta 10% too large",
        "the weight of good responses 10% too large",
        "z0 left at 0",
        "z0 of matched pairs",
        "no reference",
        "per token instead of summed",
        "temperature 1.1",
        "EOS out of the mask",
    )
)
"""Without an optimum there is nothing to solve for: its gradient catches them."""


@dataclass(frozen=True)
class KtoRow:
    """KTO has no optimum here: good responses must gain, and its gradient be the paper's once the policy has moved."""

    name: str = "KTO"
    setting: str = f"responses of positive reward are good, {NUM_LABELS} labels each"
    size: Size = field(default_factory=Size)

    @property
    def bug_targets(self) -> Mapping[str, None]:
        return KTO_BUGS

    def bug_shifts(self, seed: int, folder: Path) -> Moved:
        return self.bug_targets

    def measure(self, seed: int, folder: Path) -> tuple[Measurement, ...]:
        problem = make_problem(self.size, seed, folder)
        is_bad = problem.rewards <= 0
        labels = Labels(NUM_LABELS * ~is_bad, NUM_LABELS * is_bad)
        run = problem.kto_run(KtoSettings(learning_rate=3e-3, num_epochs=30, batch_size=120, beta=BETA))
        learners = open_learner(run)
        train_labelled(run, problem.world, labels, learners, folder / "kto")
        learners.save(folder)
        policy, reference = response_logprobs(problem.world, learners.compute, "policy"), problem.instance().reference
        left = (np.exp(policy) * is_bad).sum(1) / (np.exp(reference) * is_bad).sum(1)
        still = KtoSettings(
            learning_rate=NO_RATE, max_grad_norm=NO_CLIP, batch_size=NUM_LABELS * is_bad.size, beta=BETA
        )
        one_step = problem.kto_run(still)
        others = open_learner(one_step)
        others.load(folder)
        expected = kto_enumerated_gradient(one_step, problem.world, labels, learners, reference)
        found = kto_step_gradient(one_step, problem.world, labels, others, folder / "one")
        error = relative_error(found, pulled_back(problem.world, learners, expected))
        return Measurement("bad responses, of what they were", float(left.max()), 0.5), Measurement(
            "gradient", error, GRADIENT
        )
