"""Real DeepSpeed on one to three ranks: what an update may not depend on, clipping, and checkpoints."""

import importlib.util
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plumbob.core.errors import NotFinite
from plumbob.trainers.learner.checkpoint_shards import open_shards, write_shard
from plumbob.trainers.learner.engine import Rank
from plumbob.trainers.learner.learner_protocol import LossSum, LossTerm
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
from tests.support.learner_updates import State, Update, check_same, run, run_six, updated

STAGES = (0, 1, 2, 3)


@pytest.fixture(scope="module")
def expected(one_rank: Ranks, llama: Path) -> Update:
    result = run(one_rank, LearnerCase(llama), WHOLE)
    moved = [np.abs(result[2][name] - tensor).max() for name, tensor in result[1].items() if name.startswith("param.")]
    assert len(moved) == 57 and min(moved) > 1e-4, "an update that moves nothing proves nothing"
    assert any(tensor.size % 2 for name, tensor in result[2].items() if name.startswith("param."))
    return result


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
def test_micro_batches_change_nothing(one_rank: Ranks, llama: Path, expected: Any, micro_batch_size: int) -> None:
    check_same(run(one_rank, LearnerCase(llama, micro_batch_size=micro_batch_size), WHOLE), expected)


def test_padding_changes_nothing(one_rank: Ranks, llama: Path, expected: Any) -> None:
    check_same(run(one_rank, LearnerCase(llama), WHOLE, 5), expected)


def test_gradient_checkpointing_changes_nothing(one_rank: Ranks, llama: Path, expected: Any) -> None:
    check_same(run(one_rank, LearnerCase(llama, gradient_checkpointing=True, micro_batch_size=4), WHOLE), expected)


@pytest.fixture(scope="module")
def expected_of_six(one_rank: Ranks, llama: Path) -> Update:
    return run_six(one_rank, LearnerCase(llama))


@pytest.mark.parametrize("zero_stage", STAGES)
@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_ranks_and_zero_stages_change_nothing(
    one_rank: Ranks,
    two_ranks: Ranks,
    three_ranks: Ranks,
    llama: Path,
    expected_of_six: Any,
    num_ranks: int,
    zero_stage: int,
) -> None:
    # Two optimizer steps: what a stage keeps of the first one's gradients would show in the second.
    ranks = {1: one_rank, 2: two_ranks, 3: three_ranks}[num_ranks]
    case = LearnerCase(llama, zero_stage=zero_stage, micro_batch_size=1)
    check_same(run_six(ranks, case), expected_of_six)


def test_a_mean_of_micro_batches_would_have_been_noticed(one_rank: Ranks, llama: Path, expected: Any) -> None:
    # The planted mistake: dividing by each micro-batch's own tokens weighs short responses more.
    found = one_rank.run(updated_by_micro_batch_means, LearnerCase(llama, micro_batch_size=2))[0]
    with pytest.raises(AssertionError):
        check_same((expected[0], expected[1], found), expected)


def updated_by_micro_batch_means(case: LearnerCase) -> State:
    learner = tiny_learner(case)

    def wrong(own: LossTerm[Any]) -> LossTerm[Any]:
        def loss_sum(forward: Any, batch: Any) -> LossSum:
            sums = own.loss_sum(forward, batch)
            return LossSum(sums.loss * own.count(ragged_experience()) / own.count(batch) / 4, sums.statistics)

        return replace(own, loss_sum=loss_sum)

    learner.loss_terms = tuple(wrong(own) for own in learner.loss_terms)
    learner.update(ragged_experience(), WHOLE)
    return numpy_state(learner)


# ------------------------------------------------------------------------------------------------------- the optimizer


def moment_norm(state: State, group: str) -> float:
    own = [
        tensor
        for name, tensor in state.items()
        if name.startswith("exp_avg.") and (f".{group}." in name or (group == "value" and "value_head" in name))
    ]
    return float(np.sqrt(sum(np.square(tensor.astype(np.float64)).sum() for tensor in own)))


@pytest.mark.parametrize("zero_stage", STAGES)
def test_each_group_is_clipped_by_itself(two_ranks: Ranks, llama: Path, zero_stage: int) -> None:
    # After one step the first moment is 0.1 of the clipped gradient. The policy's norm is below the bound of 9: it
    # stays. The critic's, with returns a thousand times larger, is cut to 9 exactly, and does not shrink the policy's.
    online = PPO.model_copy(update={"max_grad_norm": 9.0})
    case = LearnerCase(llama, zero_stage=zero_stage)
    metrics, _, state = run(two_ranks, case, WHOLE, 0, online, 1000.0)
    assert metrics["policy_grad_norm"] < 9 and metrics["value_grad_norm"] > 100
    assert moment_norm(state, "policy") == pytest.approx(0.1 * metrics["policy_grad_norm"], rel=1e-4)
    assert moment_norm(state, "value") == pytest.approx(0.1 * 9.0, rel=1e-4)


def test_each_group_has_its_learning_rate(one_rank: Ranks, llama: Path) -> None:
    # Adam's first step is lr g / (|g| + 1e-8): the learning rate itself wherever the gradient is not tiny.
    plan = replace(WHOLE, learning_rate_scale=0.5)
    _, before, after = run(one_rank, LearnerCase(llama, zero_stage=2), plan)
    moved = {name: float(np.abs(after[name] - before[name]).max()) for name in after if name.startswith("param.")}
    for name, step in moved.items():
        rate = 3e-3 if ".value." in name or "value_head" in name else 1e-3
        assert step == pytest.approx(0.5 * rate, rel=0.01), name


# ---------------------------------------------------------------------------------------------------------- checkpoints


def saved(case: LearnerCase, folder: Path) -> State:
    """Two optimizer steps, a checkpoint, two more."""
    learner = tiny_learner(case)
    learner.update(ragged_experience(), IN_TWO)
    learner.save(folder)
    learner.update(ragged_experience(), replace(IN_TWO, seed=1))
    return numpy_state(learner)


def resumed(case: LearnerCase, folder: Path) -> State:
    """The same from the checkpoint, by a learner that began otherwise and has moved."""
    learner = tiny_learner(replace(case, seed=50))
    learner.update(ragged_experience(), WHOLE)
    learner.load(folder)
    learner.update(ragged_experience(), replace(IN_TWO, seed=1))
    return numpy_state(learner)


@pytest.mark.parametrize("num_ranks, zero_stage", [(1, 0), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3)])
def test_a_checkpoint_gives_the_same_next_update_anywhere(
    one_rank: Ranks, two_ranks: Ranks, llama: Path, tmp_path: Path, num_ranks: int, zero_stage: int
) -> None:
    ranks = {1: one_rank, 2: two_ranks}
    case = LearnerCase(llama, zero_stage=zero_stage)
    expected = ranks[num_ranks].run(saved, case, tmp_path)[0]
    again = ranks[num_ranks].run(resumed, case, tmp_path)[0]
    assert all(np.array_equal(again[name], tensor) for name, tensor in expected.items())
    assert float(expected["step"]) == 4
    for other_ranks, other_stage in ((1, 2), (2, 3), (3 - num_ranks, 0)):
        found = ranks[other_ranks].run(resumed, replace(case, zero_stage=other_stage), tmp_path)[0]
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            # Four optimizer steps of 1e-3 or 3e-3 have been taken: 2% of one.
            bound = 6e-5 if name.startswith("param.") else 2e-5 * float(np.abs(tensor).max())
            assert np.abs(found[name] - tensor).max() <= bound, (other_ranks, other_stage, name)


def load_without_the_head(case: LearnerCase, folder: Path) -> None:
    learner = tiny_learner(case)
    learner.save(folder)
    with open_shards(folder) as tensors:
        others = {name: tensors[name].clone() for name in tensors if "value_head" not in name}
    write_shard(others.items(), others, folder, Rank(0, 1, ""))
    learner.load(folder)


def test_a_checkpoint_of_another_model_is_refused(one_rank: Ranks, llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"of another model: \['param\.value_head\.weight'\] stand on one side only"):
        one_rank.run(load_without_the_head, LearnerCase(llama), tmp_path)


# ---------------------------------------------------------------------------------------------------------- not finite


def broken_update(case: LearnerCase, kind: str) -> tuple[str, tuple[int, ...], bool]:
    """An update that must fail: its message, the rows that it names, and whether the parameters are as before."""
    learner = tiny_learner(case)
    before = numpy_state(learner)
    batch = ragged_experience()
    if kind == "loss":
        assert batch.critic is not None
        batch.critic.returns[5, 4] = float("nan")
    else:
        learner.loss_terms = (LossTerm("policy", infinite_slope, learner.loss_terms[0].count), learner.loss_terms[1])
    with pytest.raises(NotFinite) as caught:
        learner.update(batch, WHOLE)
    after = numpy_state(learner)
    return str(caught.value), caught.value.rows, all(np.array_equal(before[name], after[name]) for name in before)


def infinite_slope(forward: Any, batch: Any) -> LossSum:
    """A finite loss, 0, whose gradient is not: the square root at 0."""
    logprobs = forward(batch.input_ids, batch.attention_mask, batch.action_mask, 1.0)
    return LossSum((logprobs - logprobs.detach()).abs().sqrt().sum(), {})


def test_a_loss_that_is_not_finite_names_its_rows_and_moves_nothing(one_rank: Ranks, llama: Path) -> None:
    message, rows, unmoved = one_rank.run(broken_update, LearnerCase(llama, micro_batch_size=2), "loss")[0]
    assert message == "the value's loss is nan" and unmoved
    # At most 20 tokens at once, twice the longest row, in as few passes and then with as little padding as can be: rows
    # of 4, 4 and 3 tokens, of 7 and 6, of 8 and 8 (0 and 5, in the order of the shuffle), and of 10.
    order = np.random.default_rng(0).permutation(8).tolist()
    assert order.index(5) < order.index(0)
    assert rows == (5, 0)


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_a_gradient_that_is_not_finite_moves_nothing(one_rank: Ranks, llama: Path, zero_stage: int) -> None:
    message, rows, unmoved = one_rank.run(broken_update, LearnerCase(llama, zero_stage=zero_stage), "gradient")[0]
    assert "gradient norms are {'policy': nan" in message and rows == () and unmoved


def imported(packages: tuple[str, ...]) -> list[str]:
    return [name for name in packages if name in sys.modules]


def test_a_rank_imports_no_tracker_of_runs(one_rank: Ranks) -> None:
    """DeepSpeed would bring MLflow, which is installed here, and pandas by it."""
    assert importlib.util.find_spec("mlflow") is not None
    assert one_rank.run(imported, ("mlflow", "deepspeed")) == [["deepspeed"]]


def test_nothing_is_compiled(one_rank: Ranks, two_ranks: Ranks, llama: Path) -> None:
    for ranks in (one_rank, two_ranks):
        ranks.run(updated, LearnerCase(llama, zero_stage=2), WHOLE)
        assert set(ranks.run(os.getenv, "TORCH_EXTENSIONS_DIR")) == {str(ranks.extensions)}
        assert list(ranks.extensions.iterdir()) == []
