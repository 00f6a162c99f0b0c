"""Offline rows of the table: a preference loss, and the policy of its least value."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from configs.objectives import (
    ConservativeDpoLoss,
    DpoLoss,
    IpoLoss,
    OrpoLoss,
    PreferenceLoss,
    RobustDpoLoss,
    SimpoLoss,
)
from configs.stages import Dpo
from console.verify.local import open_learner
from console.verify.offline import exact_counts, train_offline
from console.verify.optima_offline import (
    averaged_ipo_optimum,
    dpo_optimum,
    exact_wins,
    flipped,
    ipo_optimum,
    orpo_optimum,
    robust_wins,
    simpo_optimum,
)
from console.verify.problem import DISTANCE, Check, Problem, Size, make_problem
from console.verify.tree import Array, total_variation
from console.verify.world import Compute, answer_logprobs


@dataclass(frozen=True)
class OfflineRow:
    """A preference loss on every pair in both orders, as often as its probability says.

    Attributes:
        target: (reference [K], wins [K, K], tokens of each answer [K]) -> log-probs [K] of the least loss.
        flip_rate: of the labels, those recorded the wrong way round.
    """

    name: str
    setting: str
    loss: PreferenceLoss
    target: Callable[[Array, Array, Array], Array]
    flip_rate: float = 0.0
    size: Size = field(default_factory=Size)
    num_epochs: int = 3
    learning_rate: float = 3e-3

    def measure(self, seed: int, folder: Path) -> tuple[Check, ...]:
        problem = make_problem(self.size, seed, folder)
        wins = np.stack([flipped(exact_wins(rewards), self.flip_rate) for rewards in problem.rewards])
        dpo = Dpo(
            learning_rate=self.learning_rate,
            schedule="linear",
            num_epochs=self.num_epochs,
            batch_size=512,
            loss=self.loss,
        )
        learners = train_offline(problem.dpo_run(dpo), problem.world, exact_counts(wins), folder)
        policy = answer_logprobs(problem.world, learners.compute, "policy")
        reference = answer_logprobs(problem.world, open_reference(problem), "policy")
        lengths = problem.world.tree.num_tokens
        targets = np.stack([self.target(ref, own, lengths) for ref, own in zip(reference, wins, strict=True)])
        return (Check("TV", float(total_variation(policy, targets).max()), DISTANCE),)


def open_reference(problem: Problem) -> Compute:
    """Asks the policy as it began, which a loss without a reference does not keep."""
    return open_learner(problem.dpo_run(Dpo())).compute


BETA = 0.4
OFFLINE_ROWS = (
    OfflineRow("DPO", "exact pairs", DpoLoss(beta=BETA), lambda ref, wins, _: dpo_optimum(ref, wins, BETA)),
    OfflineRow(
        "conservative DPO",
        "exact pairs, flip rate 0.1",
        ConservativeDpoLoss(beta=BETA, flip_rate=0.1),
        lambda ref, wins, _: dpo_optimum(ref, flipped(wins, 0.1), BETA),
    ),
    OfflineRow(
        "robust DPO",
        "a tenth of the labels flipped",
        RobustDpoLoss(beta=BETA, flip_rate=0.1),
        lambda ref, wins, _: dpo_optimum(ref, robust_wins(wins, 0.1), BETA),
        flip_rate=0.1,
    ),
    OfflineRow("IPO", "summed log-ratios", IpoLoss(tau=BETA), lambda ref, wins, _: ipo_optimum(ref, wins, BETA)),
    OfflineRow(
        "IPO",
        "log-ratios averaged over tokens",
        IpoLoss(tau=BETA, per_token=True),
        lambda ref, wins, lengths: averaged_ipo_optimum(ref, wins, BETA, lengths),
    ),
    OfflineRow(
        "ORPO",
        "weight 1, no reference",
        OrpoLoss(weight=1.0),
        lambda _, wins, lengths: orpo_optimum(wins, lengths, 1.0).policy,
    ),
    OfflineRow(
        "SimPO",
        "beta 1, margin 0, no reference",
        SimpoLoss(beta=1.0, margin=0.0),
        lambda _, wins, lengths: simpo_optimum(wins, lengths, 1.0, 0.0),
    ),
    OfflineRow(
        "SimPO",
        "beta 1, margin 0.5, no reference",
        SimpoLoss(beta=1.0, margin=0.5),
        lambda _, wins, lengths: simpo_optimum(wins, lengths, 1.0, 0.5),
    ),
)
