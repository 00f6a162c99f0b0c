"""Losses of preference pairs on learners: what ranks, micro-batches and padding may not change, and no reference."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.settings.offline_objectives import DpoLoss, OrpoLoss, PreferenceLoss, SimpoLoss
from plumbob.trainers.build import build_learner
from plumbob.trainers.learner.learner_protocol import UpdatePlan, merge_results
from plumbob.trainers.offline.dpo import dpo_loss_terms, pair_logprobs, step_batch, with_reference
from tests.support.learner_ranks import LearnerCase, Ranks, numpy_state, this_rank, tiny_learner
from tests.support.padding_sides import pairs_padded_on_the_left
from tests.support.ragged_batches import ragged_pairs
from tests.support.tiny_policy import write_policy

PAIRS = [(2, 6, 3), (3, 1, 5), (4, 3, 3), (2, 2, 7), (4, 6, 1), (3, 5, 2), (2, 1, 1), (2, 4, 6)]
PLAN = UpdatePlan(minibatch_size=8, num_epochs=1, learning_rate_scale=1.0, seed=0)


def updated(
    case: LearnerCase, loss: PreferenceLoss, reference: np.ndarray | None, on_left: bool = False
) -> tuple[Any, dict[str, np.ndarray]]:
    learner = tiny_learner(case, loss_terms=dpo_loss_terms(loss))
    learners: Any = learner
    if reference is None:  # Without a reference nothing is computed, by one rank or by several.
        batch = with_reference(ragged_pairs(PAIRS), loss, learners)
    else:
        batch = step_batch(ragged_pairs(PAIRS), reference)
    if on_left:
        batch = replace(batch, pairs=pairs_padded_on_the_left(batch.pairs))
    return learner.update(batch, PLAN), numpy_state(learner)


def reference_logprobs(case: LearnerCase) -> np.ndarray:
    return tiny_learner(case, loss_terms=dpo_loss_terms(DpoLoss())).compute(
        ragged_pairs(PAIRS), "reference", pair_logprobs
    )


@pytest.mark.parametrize(
    "loss",
    [DpoLoss(beta=0.5), SimpoLoss(), OrpoLoss(weight=0.5, likelihood="sequence")],
    ids=lambda loss: loss.kind,
)
def test_ranks_micro_batches_and_the_side_of_padding_change_nothing(
    one_rank: Ranks, two_ranks: Ranks, llama: Path, loss: PreferenceLoss
) -> None:
    reference = one_rank.run(reference_logprobs, LearnerCase(llama))[0] if isinstance(loss, DpoLoss) else None
    result, expected = one_rank.run(updated, LearnerCase(llama), loss, reference)[0]
    metrics = merge_results([result])
    assert metrics["policy_grad_norm"] > 1e-3
    for ranks, zero_stage, micro_batch_size, on_left in (
        (one_rank, 0, 3, False),
        (one_rank, 0, 3, True),
        (two_ranks, 2, 2, True),
        (two_ranks, 3, 1, False),
    ):
        case = LearnerCase(llama, zero_stage=zero_stage, micro_batch_size=micro_batch_size)
        found = ranks.run(updated, case, loss, reference, on_left)
        merged = merge_results([result for result, _ in found])
        assert merged == pytest.approx(metrics, rel=1e-4, abs=1e-6)
        for name, tensor in expected.items():
            # As for PPO: 2e-5 of the largest moment, and of a parameter 2% of a step of 1e-3.
            bound = 2e-5 if name.startswith("param.") else 2e-5 * float(np.abs(tensor).max())
            assert np.abs(found[0][1][name] - tensor).max() <= bound, name


def test_a_reference_free_loss_asks_for_no_reference() -> None:
    pairs = ragged_pairs(PAIRS)
    nobody: Any = None
    batch = with_reference(pairs, OrpoLoss(), nobody)
    assert not batch.ref_chosen.any() and not batch.ref_rejected.any() and batch.num_rows == len(PAIRS)
    assert batch.response_lengths.tolist() == [[chosen, rejected] for _, chosen, rejected in PAIRS]


def adapters_of(run: Any) -> dict[str, str | None]:
    model: Any = build_learner(run, this_rank()).model
    return dict(model.adapters)


def test_a_reference_free_loss_builds_none(one_rank: Ranks, tmp_path: Path) -> None:
    folder = write_policy(tmp_path)
    policy = {"policy": "policy"}
    for kind, expected in (("dpo", policy | {"reference": None}), ("simpo", policy), ("orpo", policy)):
        run = load_run("dpo", [f"policy.model={folder}", "data.pairs=none", f"dpo.loss.kind={kind}"])
        assert one_rank.run(adapters_of, run) == [expected]
