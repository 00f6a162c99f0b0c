"""A policy tuned in its own weights, on learner ranks: its reference, its critic, ranks and ZeRO, checkpoints."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from plumbob.configs.settings.offline_objectives import DpoLoss
from plumbob.configs.settings.training import KtoSettings
from plumbob.configs.settings.tuning.weights import FullTuning, SelectiveTuning
from plumbob.trainers.learner.learner_protocol import UpdatePlan, merge_results
from plumbob.trainers.offline.dpo import dpo_loss_terms, pair_logprobs, response_logprobs, step_batch
from plumbob.trainers.offline.kto import KtoBatch, kto_loss_terms
from plumbob.trainers.online.objective import TrajectoryBatch, forward_actions
from tests.support.learner_ranks import (
    IN_TWO,
    PPO,
    WHOLE,
    LearnerCase,
    Ranks,
    numpy_state,
    ragged_experience,
    tiny_learner,
)
from tests.support.ragged_batches import ragged_pairs

State = dict[str, np.ndarray]
TUNINGS = {
    "full": FullTuning(),
    "full, a head": FullTuning(critic="head"),
    "selective": SelectiveTuning(targets=("layers.1.self_attn",), norms=True),
}
NUM_TRAINED = {
    # Two layers of 7 matrices and 2 norms, embeddings, a norm and the head; the critic has its own head instead.
    "full": 21 + 21,
    "full, a head": 21 + 1,
    # 4 matrices and 5 norms; the critic has its own head beside them.
    "selective": 9 + 10,
}


def case_of(llama: Path, tuning: str, zero_stage: int = 0, micro_batch_size: int = 8) -> LearnerCase:
    return LearnerCase(llama, zero_stage, micro_batch_size, adapter_std=0.0, tuning=TUNINGS[tuning])


def computed(learner: Any, role: Any) -> np.ndarray:
    batch = ragged_experience()
    asked = TrajectoryBatch(batch.input_ids, batch.attention_mask, batch.action_mask, 0.8)
    found: np.ndarray = learner.compute(asked, role, forward_actions)
    return found


def updated(case: LearnerCase) -> tuple[Any, State, dict[str, np.ndarray]]:
    """Two optimizer steps; and what policy and reference said before, and the reference after."""
    learner = tiny_learner(case)
    said = {"policy": computed(learner, "policy"), "reference": computed(learner, "reference")}
    result = learner.update(ragged_experience(), IN_TWO)
    said |= {"policy after": computed(learner, "policy"), "after": computed(learner, "reference")}
    return result, numpy_state(learner), said


@pytest.mark.parametrize("tuning", TUNINGS)
def test_ranks_and_zero_stages_change_nothing_and_the_reference_stays(
    one_rank: Ranks, two_ranks: Ranks, llama: Path, tuning: str
) -> None:
    ((result, expected, said),) = one_rank.run(updated, case_of(llama, tuning))
    # Invariant 1, and nothing of the reference is in the checkpoint.
    assert np.array_equal(said["policy"], said["reference"]) and said["policy"].any()
    assert np.array_equal(said["after"], said["reference"])
    assert np.abs(said["policy after"] - said["policy"]).max() > 1e-3
    names = {name for name in expected if name.startswith("param.")}
    assert len(names) == NUM_TRAINED[tuning] and not any("reference" in name for name in names)
    metrics = merge_results([result])
    assert metrics["policy_grad_norm"] > 1e-3 and metrics["value_grad_norm"] > 1e-3
    for ranks, zero_stage, micro_batch_size in ((one_rank, 2, 3), (two_ranks, 1, 2), (two_ranks, 3, 1)):
        found = ranks.run(updated, case_of(llama, tuning, zero_stage, micro_batch_size))
        assert merge_results([each[0] for each in found]) == pytest.approx(metrics, rel=1e-4, abs=1e-6)
        for _, state, its in found:
            assert np.array_equal(its["policy"], its["reference"]) and np.array_equal(its["after"], its["reference"])
            for name, tensor in expected.items():
                # As in test_engine: 2e-5 of the largest moment, and of a parameter 4% of two steps of 1e-3.
                bound = 8e-5 if name.startswith("param.") else 2e-5 * float(np.abs(tensor).max())
                assert np.abs(state[name] - tensor).max() <= bound, (zero_stage, name)


def saved(case: LearnerCase, folder: Path) -> State:
    learner = tiny_learner(case)
    learner.update(ragged_experience(), IN_TWO)
    learner.save(folder)
    learner.update(ragged_experience(), replace(IN_TWO, seed=1))
    return numpy_state(learner)


def resumed(case: LearnerCase, folder: Path) -> tuple[State, bool]:
    """The same from the checkpoint, by a learner that has moved elsewhere; and whether its reference is as ever."""
    learner = tiny_learner(replace(case, seed=50))
    before = computed(learner, "reference")
    learner.update(ragged_experience(), WHOLE)
    learner.load(folder)
    learner.update(ragged_experience(), replace(IN_TWO, seed=1))
    return numpy_state(learner), np.array_equal(before, computed(learner, "reference"))


@pytest.mark.parametrize("tuning", TUNINGS)
@pytest.mark.parametrize("zero_stage", [0, 3])
def test_a_checkpoint_gives_the_same_next_update(
    two_ranks: Ranks, llama: Path, tmp_path: Path, tuning: str, zero_stage: int
) -> None:
    case = case_of(llama, tuning, zero_stage)
    expected = two_ranks.run(saved, case, tmp_path)[0]
    for again, is_reference in two_ranks.run(resumed, case, tmp_path):
        assert is_reference
        assert all(np.array_equal(again[name], tensor) for name, tensor in expected.items())


# ------------------------------------------------------------------------------------------- against a plain torch loop


BETA, KL = 0.5, 0.1
PAIRS = [(2, 3, 2), (3, 1, 5)]


def dpo_step(case: LearnerCase) -> tuple[Any, State]:
    learner = tiny_learner(case, loss_terms=dpo_loss_terms(DpoLoss(beta=BETA)))
    pairs = ragged_pairs(PAIRS)
    batch = step_batch(pairs, learner.compute(pairs, "reference", pair_logprobs))
    return learner.update(batch, UpdatePlan(len(PAIRS), 1, 1.0, 0)), numpy_state(learner)


def kto_step(case: LearnerCase) -> tuple[Any, State]:
    learner = tiny_learner(case, loss_terms=kto_loss_terms(KtoSettings(beta=BETA, desirable_weight=1.5)))
    responses = ragged_pairs(PAIRS).chosen
    reference = learner.compute(responses, "reference", response_logprobs)
    batch = KtoBatch(responses, np.array([True, False]), reference, KL)
    return learner.update(batch, UpdatePlan(len(PAIRS), 1, 1.0, 0)), numpy_state(learner)


def sums_by_plain_transformers(model: LlamaForCausalLM, side: Any) -> torch.Tensor:
    """Of each row alone, unpadded: log pi of its response."""
    sums = []
    for row in range(len(side.input_ids)):
        own = side.attention_mask[row]
        ids, asked = torch.from_numpy(side.input_ids[row][own])[None].long(), side.loss_mask[row][own]
        logprobs = torch.log_softmax(model(input_ids=ids).logits[0, :-1], -1).gather(1, ids[0, 1:, None])[:, 0]
        sums.append(logprobs[torch.from_numpy(asked)[1:]].sum())
    return torch.stack(sums)


def log_ratios(model: LlamaForCausalLM, reference: LlamaForCausalLM, side: Any) -> torch.Tensor:
    with torch.no_grad():
        of_reference = sums_by_plain_transformers(reference, side)
    return sums_by_plain_transformers(model, side) - of_reference


def check_step(result: Any, state: State, model: LlamaForCausalLM, loss: torch.Tensor) -> None:
    """That a learner came where one step of torch's own AdamW on the loss takes the model."""
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), PPO.max_grad_norm)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    torch.optim.AdamW(model.parameters(), lr=PPO.learning_rate, weight_decay=0.0).step()
    metrics = merge_results([result])
    assert metrics["policy_grad_norm"] == pytest.approx(float(norm), rel=1e-4)
    for name, parameter in model.named_parameters():
        gradient = 10 * state[f"exp_avg.causal_lm.{name}"]  # Adam's first moment is 0.1 g after one step.
        np.testing.assert_allclose(gradient, parameter.grad, rtol=0, atol=2e-5 * float(parameter.grad.abs().max()))
        moved = state[f"param.causal_lm.{name}"] - before[name].numpy()
        by_hand = (parameter.detach() - before[name]).numpy()
        is_large = np.abs(parameter.grad.numpy()) > 1e-3 * float(parameter.grad.abs().max())
        assert np.abs(moved - by_hand)[is_large].max() <= 2e-5, name


def test_a_step_of_dpo_is_that_of_a_plain_loop(one_rank: Ranks, llama: Path) -> None:
    """-mean log sigmoid(beta ((log pi - log ref)(chosen) - (...)(rejected)))."""
    result, state = one_rank.run(dpo_step, case_of(llama, "full"))[0]
    model, reference = (LlamaForCausalLM.from_pretrained(llama) for _ in range(2))
    pairs = ragged_pairs(PAIRS)
    chosen, rejected = (log_ratios(model, reference, side) for side in (pairs.chosen, pairs.rejected))
    check_step(result, state, model, -torch.nn.functional.logsigmoid(BETA * (chosen - rejected)).mean())


def test_a_step_of_kto_is_that_of_a_plain_loop(one_rank: Ranks, llama: Path) -> None:
    """Mean of w (1 - sigmoid(beta (u - z0))) of a good response and (1 - sigmoid(beta (z0 - u))) of a bad one."""
    result, state = one_rank.run(kto_step, case_of(llama, "full"))[0]
    model, reference = (LlamaForCausalLM.from_pretrained(llama) for _ in range(2))
    good, bad = log_ratios(model, reference, ragged_pairs(PAIRS).chosen)
    losses = (1.5 * (1 - torch.sigmoid(BETA * (good - KL))), 1 - torch.sigmoid(BETA * (KL - bad)))
    check_step(result, state, model, sum(losses) / 2)


# ----------------------------------------------------------------------------------------------------------- bfloat16


def updated_in_bfloat16(case: LearnerCase) -> tuple[State, State, dict[str, np.ndarray]]:
    """As `updated`; with the weights that the policy then computes with."""
    learner = tiny_learner(case)
    said = {"policy": computed(learner, "policy"), "reference": computed(learner, "reference")}
    learner.update(ragged_experience(), IN_TWO)
    said |= {"policy after": computed(learner, "policy"), "after": computed(learner, "reference")}
    weights = dict(learner.model.causal_lm.named_parameters())  # type: ignore[union-attr, operator]
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    return numpy_state(learner), {name: weight.detach().float().numpy() for name, weight in weights.items()}, said


@pytest.mark.parametrize("zero_stage", [1, 2])
def test_in_bfloat16_a_float32_copy_is_what_moves(one_rank: Ranks, llama: Path, zero_stage: int) -> None:
    case = replace(case_of(llama, "full", zero_stage), dtype="bfloat16")
    state, weights, said = one_rank.run(updated_in_bfloat16, case)[0]
    assert np.array_equal(said["policy"], said["reference"]) and said["policy"].any()
    assert np.array_equal(said["after"], said["reference"])
    assert np.abs(said["policy after"] - said["policy"]).max() > 1e-3
    finer = 0
    for name, weight in weights.items():
        copy = torch.from_numpy(state[f"param.causal_lm.{name}"])
        assert np.array_equal(copy.bfloat16().float().numpy(), weight), name
        finer += int((copy.numpy() != weight).sum())
    assert finer > 0.9 * sum(weight.size for weight in weights.values())
