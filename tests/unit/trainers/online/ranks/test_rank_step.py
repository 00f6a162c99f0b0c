"""A step on two ranks is that on one: the same statistics, the same policy, and every row written down once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.algorithms import Estimator, FixedKl, Gae, Grpo, OnlineDpo
from plumbob.configs.settings.data import PromptDataSettings
from plumbob.configs.settings.models import AlignedPolicySettings
from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.configs.settings.training import OnlineSettings
from plumbob.configs.settings.workers import RolloutSettings
from plumbob.core.errors import NotFinite, StaleRollouts
from plumbob.reward.scorer import Score
from plumbob.rollout.journal import read_step
from plumbob.rollout.journal_files import step_file, step_writers
from plumbob.rollout.rollout_records import Rollout, SampleRequest
from plumbob.trainers.learner.learner_protocol import UpdatePlan, merge_results
from plumbob.trainers.learner.ranks.own_rows import OwnRows
from plumbob.trainers.online.collection.collector import StepResponses
from plumbob.trainers.online.part_rewards import are_learnt, combined_scores
from plumbob.trainers.online.ranks.dealing import Deal, blocks
from plumbob.trainers.online.ranks.rank_step import RankResult, StepOrder, evaluate_rows, learn_rows, write_rows
from plumbob.trainers.online.trajectories import group_numbers
from tests.support.learner_ranks import TEMPERATURE, LearnerCase, Ranks, numpy_state, this_rank, tiny_learner

GROUP, NUM_GROUPS = 2, 4
ESTIMATORS = (Gae(), Grpo(), OnlineDpo())
"""Of the others `algorithms/test_whole_batch.py` sees that they are the same, and each learns as one of these."""


def run_of(estimator: Estimator, **changes: Any) -> OnlineRun:
    """Two optimizer steps in each of two epochs."""
    online = OnlineSettings(
        estimator=estimator,
        prompts_per_step=NUM_GROUPS,
        samples_per_prompt=GROUP,
        minibatch_size=NUM_GROUPS * GROUP // 2,
        num_epochs=2,
        learning_rate=1e-2,
        kl=FixedKl(coefficient=0.1),
    )
    return OnlineRun(
        data=PromptDataSettings(prompts="unused"),
        policy=AlignedPolicySettings(model="unused"),
        reward=ScorerSettings(model="unused"),
        rollout=RolloutSettings(temperature=TEMPERATURE, max_tokens=8),
        online=online.model_copy(update=changes),
        seed=5,
    )


def responses(version: int = 0) -> StepResponses:
    """Eight of 0 to 6 tokens, one of them cut, and a group that was left out; every number by a fixed seed."""
    random = np.random.default_rng(3)
    rollouts, scores = [], []
    for row, length in enumerate([6, 1, 3, 2, 0, 5, 4, 6, 2, 3]):
        ids = random.integers(1, 40, length).astype(np.int32)
        prompt = np.array([3, row // GROUP, 7], np.int32)[: 2 + row // GROUP % 2]
        request = SampleRequest(f"p{row // GROUP}", f"0-{row // GROUP}", row % GROUP, row, "a prompt", prompt)
        logprobs = random.normal(-3.5, 0.1, length).astype(np.float32)
        versions, mask = np.full(length, version, np.int32), np.ones(length, np.bool_)
        rollouts.append(Rollout(request, "length" if row == 3 else "stop", "text", ids, logprobs, versions, mask, "w"))
        scores.append(Score(float(random.normal()), {"model": 1.0}))
    positions = {f"0-{group}": group for group in range(NUM_GROUPS + 1)}
    dropped = tuple(zip(rollouts[8:], scores[8:], strict=True))
    return StepResponses(tuple(rollouts[:8]), tuple(scores[:8]), dropped, 2, 0, positions)


class OwnStep(NamedTuple):
    """What a step gives on one rank."""

    result: RankResult
    state: dict[str, np.ndarray]
    size: int


def step_on_rank(folder: Path, run: OnlineRun, found: StepResponses, probed: Any, journal: Sequence[Path]) -> OwnStep:
    """As the driver has it made, on this process's rank."""
    index, num_ranks = this_rank().index, this_rank().world_size
    rank = OwnRows(tiny_learner(LearnerCase(folder), run.online))
    order = StepOrder(run, 0, 0, 0.1, UpdatePlan(run.online.rows_per_update, run.online.num_epochs, 1.0, 11))
    deal = Deal(found, num_ranks)
    refs = deal.rollouts()[index]
    rank.rollouts = refs.of(refs.parts)
    evaluate_rows(rank, order, deal.to_compute(probed, None)[index])
    scores = combined_scores(run, found.scores, are_learnt(run.online, found.rollouts), group_numbers(found.rollouts))
    result = learn_rows(rank, order, deal.to_learn(scores, None)[index])
    size = write_rows(rank, order, journal[index])
    assert rank.kept is None
    return OwnStep(result, numpy_state(rank._learner), size)


def step(
    ranks: Ranks, num_ranks: int, folder: Path, run: OnlineRun, journal: Path, probed: Any = None
) -> list[OwnStep]:
    with step_writers(journal, 1, num_ranks) as paths:
        found: list[OwnStep] = ranks.run(step_on_rank, folder, run, responses(), probed, paths)
    return found


def numbers_of(record: Any) -> dict[str, float]:
    return {name: value for name, value in vars(record).items() if isinstance(value, int | float)}


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: estimator.kind)
def test_two_ranks_make_the_step_of_one(
    one_rank: Ranks, two_ranks: Ranks, llama: Path, tmp_path: Path, estimator: Estimator
) -> None:
    run = run_of(estimator, mask_truncated=True)
    (alone,) = step(one_rank, 1, llama, run, tmp_path / "one")
    both = step(two_ranks, 2, llama, run, tmp_path / "two")
    for own in both:
        for record in ("stats", "of_tokens"):
            of_one, of_own = (numbers_of(getattr(each.result, record)) for each in (alone, own))
            assert of_own == pytest.approx(of_one, rel=1e-6, abs=1e-6), record
        for name, expected in alone.state.items():
            # Adam makes a step of a gradient's rounding, where there is no more of it: of a few elements.
            apart = np.abs(own.state[name] - expected)
            assert apart.max() < 1e-3 and apart.mean() < 2e-5, name
    merged = merge_results([own.result.update for own in both])
    assert merged == pytest.approx(merge_results([alone.result.update]), rel=1e-4, abs=1e-6)
    of_one, of_two = (read_step(step_file(tmp_path / folder, 1)) for folder in ("one", "two"))
    # Each rank's own rows, then those that it was given of the group that was left out.
    assert [(row.prompt_id, row.sample_index) for row in of_one] == [(f"p{i // 2}", i % 2) for i in range(10)]
    assert [(row.prompt_id, row.sample_index) for row in of_two] == [
        *[(f"p{i // 2}", i % 2) for i in range(4)], ("p4", 0), *[(f"p{i // 2}", i % 2) for i in range(4, 8)], ("p4", 1)
    ]  # fmt: skip
    assert [own.size for own in both] == [path.stat().st_size for path in sorted((tmp_path / "two").glob("*/*"))]
    found = {(row.prompt_id, row.sample_index): row for row in of_two}
    for row in of_one:
        other = found[row.prompt_id, row.sample_index]
        for name in ("advantages", "returns", "token_rewards", "ratios", "values", "ref_logprobs", "learner_logprobs"):
            expected, got = getattr(row, name), getattr(other, name)
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5, err_msg=f"{row.prompt_id} {name}")


def test_a_sampler_that_is_off_on_one_rank_is_trusted_on_none(
    one_rank: Ranks, two_ranks: Ranks, llama: Path, tmp_path: Path
) -> None:
    """The first rank has no row by which it is tried."""
    probed = np.array([6])
    (alone,) = step(one_rank, 1, llama, run_of(Gae()), tmp_path / "one", probed)
    for own in step(two_ranks, 2, llama, run_of(Gae()), tmp_path / "two", probed):
        assert not own.result.of_tokens.took_sampler and not alone.result.of_tokens.took_sampler
        assert own.result.stats.sampler_gap_max == pytest.approx(alone.result.stats.sampler_gap_max, abs=1e-5)


def refused(folder: Path, found: StepResponses) -> tuple[str, tuple[int, ...]]:
    run = run_of(Gae())
    try:
        step_on_rank(folder, run, found, None, [folder, folder])
    except (StaleRollouts, NotFinite) as error:
        return str(error), getattr(error, "rows", ())
    raise AssertionError("it was learnt from")


def test_all_ranks_refuse_what_one_of_them_has(two_ranks: Ranks, llama: Path) -> None:
    stale = "row 0, 1, 2, 3, 5, 6, 7 of the batch of 8: tokens of policy version 2, but the learner"
    for message, _ in two_ranks.run(refused, llama, responses(version=2)):
        assert message.startswith(stale), message
    fine = responses()
    broken = StepResponses(fine.rollouts, (*fine.scores[:6], Score(float("nan"), {}), fine.scores[7]), (), 1, 0)
    for message, rows in two_ranks.run(refused, llama, broken):
        assert message == "scores: not finite in row 6 of the batch of 8" and rows == (6,)


def test_rows_are_dealt_side_by_side() -> None:
    assert [list(range(8))[rows] for rows in blocks(8, 4)] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    # Of three that are left out the last of three ranks writes down none.
    assert [list(range(3))[rows] for rows in blocks(3, 2)] == [[0, 1], [2]]
    assert [list(range(2))[rows] for rows in blocks(2, 3)] == [[0], [1], []]
    found = Deal(responses(), 2).to_compute(np.array([1, 3, 4, 7]), torch.arange(8))
    assert [own.first for own in found] == [0, 4]
    assert [own.groups.tolist() for own in found] == [[0, 0, 1, 1], [2, 2, 3, 3]]
    assert [own.probed.tolist() for own in found if own.probed is not None] == [[1, 3], [0, 3]]
    assert [own.teachers.tolist() for own in found if own.teachers is not None] == [[0, 1, 2, 3], [4, 5, 6, 7]]
