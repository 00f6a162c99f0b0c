"""Real DeepSpeed around a base of 4 bits: the same updates in every ZeRO stage, and checkpoints that hold adapters."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plumbob.configs.settings.tuning.quantization import Nf4Quantization
from plumbob.trainers.learner.checkpoint_shards import open_shards
from tests.support.learner_ranks import (
    IN_TWO,
    WHOLE,
    LearnerCase,
    Ranks,
    numpy_state,
    ragged_experience,
    tiny_learner,
)

State = dict[str, np.ndarray]


def case_of(llama: Path, zero_stage: int = 0, micro_batch_size: int = 8) -> LearnerCase:
    return LearnerCase(llama, zero_stage, micro_batch_size, quantization=Nf4Quantization(block_size=32))


def updated(case: LearnerCase) -> State:
    """Two optimizer steps of policy and critic, with an evaluation before and between them."""
    learner = tiny_learner(case)
    for seed in (0, 1):
        for role in ("reference", "value"):
            learner.compute(ragged_experience(), role, row_sums)
        learner.update(ragged_experience(), replace(WHOLE, seed=seed))
    return numpy_state(learner)


def row_sums(forward: Any, batch: Any) -> Any:
    return forward(batch.input_ids, batch.attention_mask, batch.action_mask, 1.0).sum(dim=1)


@pytest.fixture(scope="module")
def expected(one_rank: Ranks, llama: Path) -> State:
    return dict(one_rank.run(updated, case_of(llama))[0])


@pytest.mark.parametrize(("num_ranks", "zero_stage"), [(1, 2), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3)])
def test_ranks_and_zero_stages_change_nothing(
    one_rank: Ranks, two_ranks: Ranks, llama: Path, expected: State, num_ranks: int, zero_stage: int
) -> None:
    ranks = {1: one_rank, 2: two_ranks}[num_ranks]
    found = ranks.run(updated, case_of(llama, zero_stage, micro_batch_size=2))[0]
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        # Two optimizer steps of 1e-3 or 3e-3 have been taken: 2% of one.
        bound = 6e-5 if name.startswith("param.") else 2e-5 * float(np.abs(tensor).max())
        assert np.abs(found[name] - tensor).max() <= bound, name


def test_it_is_not_the_stored_base_that_is_learnt_on(one_rank: Ranks, llama: Path, expected: State) -> None:
    found = one_rank.run(updated, LearnerCase(llama))[0]
    moments = [name for name in expected if name.startswith("exp_avg.")]
    assert max(np.abs(found[n] - expected[n]).max() / np.abs(expected[n]).max() for n in moments) > 0.05


def saved(case: LearnerCase, folder: Path) -> State:
    """Two optimizer steps, a checkpoint, two more."""
    learner = tiny_learner(case)
    learner.update(ragged_experience(), IN_TWO)
    learner.save(folder)
    learner.update(ragged_experience(), replace(IN_TWO, seed=1))
    return numpy_state(learner)


def resumed(case: LearnerCase, folder: Path) -> State:
    learner = tiny_learner(replace(case, seed=50))
    learner.load(folder)
    learner.update(ragged_experience(), replace(IN_TWO, seed=1))
    return numpy_state(learner)


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_a_checkpoint_holds_adapters_and_gives_the_same_next_update(
    two_ranks: Ranks, llama: Path, tmp_path: Path, zero_stage: int
) -> None:
    case = case_of(llama, zero_stage)
    expected = two_ranks.run(saved, case, tmp_path)[0]
    again = two_ranks.run(resumed, case, tmp_path)[0]
    assert all(np.array_equal(again[name], tensor) for name, tensor in expected.items())
    with open_shards(tmp_path) as tensors:
        names = {name.partition(".")[2] for name in tensors if name != "step"}
    # 2 layers x (q, k, v, o, gate, up, down) x (A, B) for policy and critic, and the critic's head.
    assert len(names) == 57
    assert all(".lora_" in name or name == "value_head.weight" for name in names)
