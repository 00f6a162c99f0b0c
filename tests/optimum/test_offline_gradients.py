"""The gradient of one step of the real runs of pairs and KTO against the enumerated one, and bugs that it catches.

Each offline row's own loss and length-normalised DPO, and every bug that they list. About 15 s on one core.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from plumbob.configs.settings.offline_objectives import DpoLoss, IpoLoss, OrpoLoss, PreferenceLoss
from plumbob.configs.settings.training import DpoSettings, KtoSettings
from plumbob.data.tokenization import TokenBatch, collate
from plumbob.models.policy import PolicyModel
from plumbob.trainers.offline.dpo import DpoBatch, with_reference
from plumbob.trainers.offline.kto import KtoBatch, Labelled, estimated_kl
from plumbob.verify.local_learner import open_learner
from plumbob.verify.optima.offline_optima import length_tilted
from plumbob.verify.optima.planted_bugs import dpo_scores, pair_bugs
from plumbob.verify.optima.response_tree import EOS
from plumbob.verify.rows.kto_row import KtoRow
from plumbob.verify.rows.offline_rows import BETA, DPO_LOSS, OFFLINE_ROWS, OfflineRow, wins_of
from plumbob.verify.training.gradients import pulled_back, relative_error
from plumbob.verify.training.kto_gradients import NO_CLIP, NO_RATE, kto_enumerated_gradient, kto_step_gradient
from plumbob.verify.training.train_offline import Labels, exact_counts, train_labelled, train_pairs
from plumbob.verify.world.problem import Size, make_problem
from plumbob.verify.world.tiny_world import response_logprobs
from tests.optimum.online_gradients import listed_counts
from tests.optimum.pair_gradients import dpo_enumerated_gradient, dpo_step_gradient
from tests.optimum.planted import Bug, Errors, errors_with
from tests.support.learner_ranks import Ranks

SIZE = Size(depth=2)
"""13 responses to each of 3 prompts."""
PER_TOKEN_DPO = OfflineRow(
    "DPO",
    "log-ratios averaged over tokens",
    DpoLoss(beta=BETA, per_token=True),
    lambda reference, wins, num_tokens: length_tilted(reference, dpo_scores(wins, BETA), num_tokens),
    pair_bugs(dpo_scores, BETA, per_token=True),
)
"""Not in the table: its gradient alone is compared."""
PAIR_ROWS = {f"{row.name}, {row.setting}": row for row in (*OFFLINE_ROWS, PER_TOKEN_DPO) if not isinstance(row, KtoRow)}
KTO = KtoSettings(
    learning_rate=3e-3, num_epochs=3, batch_size=39, beta=0.4, desirable_weight=1.3, undesirable_weight=0.7
)


def stronger(loss: PreferenceLoss) -> PreferenceLoss:
    """10%, by what the loss has for it."""
    match loss:
        case IpoLoss(tau=tau):
            return loss.model_copy(update={"tau": 1.1 * tau})
        case OrpoLoss(weight=weight):
            return loss.model_copy(update={"weight": 1.1 * weight})
        case _:
            return loss.model_copy(update={"beta": 1.1 * loss.beta})


def without_reference(*arguments: Any) -> DpoBatch:
    batch = with_reference(*arguments)
    return replace(batch, ref_chosen=np.zeros_like(batch.ref_chosen), ref_rejected=np.zeros_like(batch.ref_rejected))


def labels_without_reference(*arguments: Any) -> KtoBatch:
    batch = KtoBatch(*arguments)
    return replace(batch, ref_logprobs=np.zeros_like(batch.ref_logprobs))


def without_eos(*arguments: Any) -> TokenBatch:
    """An EOS that is taken for padding: the policy is not taught to end."""
    batch = collate(*arguments)
    return replace(batch, loss_mask=batch.loss_mask & (batch.input_ids != EOS))


def per_token(logprobs: Tensor, mask: Tensor) -> Tensor:
    return (logprobs * mask).sum(dim=-1) / mask.sum(dim=-1)


forward_at = PolicyModel.forward


def hotter(model: PolicyModel, ids: Tensor, attention: Tensor, mask: Tensor, _: float) -> Tensor:
    return forward_at(model, ids, attention, mask, 1.1)


def matched(records: list[Labelled], others: list[Labelled], *more: Any) -> float:
    """z0 of each record's prompt with its own response."""
    return estimated_kl(records, records, *more)


PER_TOKEN = Bug(replaced=("plumbob.trainers.offline.dpo.sequence_logprobs", per_token))
HOTTER = Bug(replaced=("plumbob.models.policy.PolicyModel.forward", hotter))
PAIR_BUGS = {
    "beta 10% too large": Bug(stronger),
    "weight 10% too large": Bug(stronger),
    "no reference": Bug(replaced=("plumbob.trainers.offline.dpo.with_reference", without_reference)),
    "per token instead of summed": PER_TOKEN,
    "summed instead of per token": Bug(
        replaced=(
            "plumbob.trainers.offline.dpo.DpoBatch.response_lengths",
            property(lambda batch: np.ones((batch.num_rows, 2))),
        )
    ),
    "temperature 1.1": HOTTER,
    "EOS out of the mask": Bug(replaced=("plumbob.trainers.offline.dpo.collate", without_eos)),
    "flip rate left out": Bug(lambda loss: DpoLoss(beta=loss.beta)),
    "margin left out": Bug(lambda loss: loss.model_copy(update={"margin": 0.0})),
}
KTO_BUGS = {
    "beta 10% too large": Bug(lambda kto: kto.model_copy(update={"beta": 1.1 * kto.beta})),
    "the weight of good responses 10% too large": Bug(
        lambda kto: kto.model_copy(update={"desirable_weight": 1.1 * kto.desirable_weight})
    ),
    "z0 left at 0": Bug(replaced=("plumbob.trainers.offline.kto.estimated_kl", lambda *_: 0.0)),
    "z0 of matched pairs": Bug(replaced=("plumbob.trainers.offline.kto.estimated_kl", matched)),
    "no reference": Bug(replaced=("plumbob.trainers.offline.kto.KtoBatch", labels_without_reference)),
    "per token instead of summed": PER_TOKEN,
    "temperature 1.1": HOTTER,
    "EOS out of the mask": Bug(replaced=("plumbob.trainers.offline.kto.collate", without_eos)),
}


def pair_errors(folder: Path, name: str) -> Errors:
    """Relative errors of the gradient of a row's loss: of the honest trainer, and of each bug that the row lists.

    After a few real steps of DPO, so that the policy is not the reference.
    """
    row = PAIR_ROWS[name]
    problem = make_problem(SIZE, 0, folder)
    counts = exact_counts(wins_of(problem), copies=1)
    num_pairs = int(counts.sum())
    run = problem.dpo_run(DpoSettings(learning_rate=1e-4, loss=DPO_LOSS, batch_size=num_pairs // 3))
    learners = open_learner(run)
    train_pairs(run, problem.world, counts, learners, folder / "before")
    learners.save(folder)
    reference = problem.instance().reference
    by_logits = dpo_enumerated_gradient(problem.world, counts, row.loss, learners, reference)
    expected = pulled_back(problem.world, learners, by_logits)

    def error(bug: Bug, step: Path) -> float:
        loss = bug.settings(row.loss)
        run = problem.dpo_run(
            DpoSettings(learning_rate=NO_RATE, max_grad_norm=NO_CLIP, loss=loss, batch_size=num_pairs)
        )
        others = open_learner(run)
        others.load(folder)
        with bug.planted():
            found = dpo_step_gradient(run, problem.world, counts, others, step)
        return relative_error(found, expected)

    return errors_with(error, PAIR_BUGS, row.bug_targets, folder)


def kto_errors(folder: Path) -> Errors:
    """As `pair_errors`; the records are responses as the policy draws them, so that z0 is not 0."""
    problem = make_problem(SIZE, 0, folder)
    run = problem.kto_run(KTO)
    learners = open_learner(run)
    is_good = problem.rewards > 0
    train_labelled(run, problem.world, Labels(2 * is_good, 2 * ~is_good), learners, folder / "before")
    learners.save(folder)
    counts = listed_counts(response_logprobs(problem.world, learners.compute, "policy"), 60)
    good = np.random.default_rng(0).binomial(counts, 0.5)
    labels = Labels(good, counts - good)
    still = KTO.model_copy(
        update={
            "learning_rate": NO_RATE,
            "max_grad_norm": NO_CLIP,
            "num_epochs": 1,
            "batch_size": len(labels.responses),
        }
    )
    reference = problem.instance().reference
    by_logits = kto_enumerated_gradient(problem.kto_run(still), problem.world, labels, learners, reference)
    expected = pulled_back(problem.world, learners, by_logits)

    def error(bug: Bug, step: Path) -> float:
        run = problem.kto_run(bug.settings(still))
        others = open_learner(run)
        others.load(folder)
        with bug.planted():
            found = kto_step_gradient(run, problem.world, labels, others, step)
        return relative_error(found, expected)

    return errors_with(error, KTO_BUGS, KtoRow().bug_targets, folder)


@pytest.mark.parametrize("name", PAIR_ROWS)
def test_each_loss_of_pairs_has_the_enumerated_gradient_and_bugs_do_not(
    one_rank: Ranks, tmp_path: Path, name: str
) -> None:
    one_rank.run(pair_errors, tmp_path, name)[0].check()


def test_kto_has_the_enumerated_gradient_and_bugs_do_not(one_rank: Ranks, tmp_path: Path) -> None:
    one_rank.run(kto_errors, tmp_path)[0].check()
