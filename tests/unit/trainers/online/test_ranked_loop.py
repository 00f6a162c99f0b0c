"""The loop with ranked groups in a world of small fakes: what is learnt of a step, and that a resumed run learns it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.algorithms import BestOfN, DynamicSamplingSettings, OnlineDpo
from plumbob.core.errors import NotFinite
from plumbob.data.tokenization import TokenSequence
from plumbob.trainers.forgetting.packed_text import PackedText
from plumbob.trainers.forgetting.replay import WithReplay
from plumbob.trainers.learner.checkpoint import Checkpoints
from plumbob.trainers.online.experience import Experience
from plumbob.trainers.online.objectives.ranked_responses import ResponsePairs
from plumbob.trainers.online.online_input import OnlineInput
from plumbob.trainers.online.online_loop import OnlineState, OnlineWorkers, run_online, run_online_asynchronous
from tests.support.online_world import PROMPTS, FakeOnlineWorld, play, settings

GROUP = 3
ESTIMATORS = [BestOfN(), OnlineDpo()]
IN_ROUNDS = {"dynamic_sampling": DynamicSamplingSettings(max_rounds=3)}


def ranked(estimator: BestOfN | OnlineDpo, **changes: Any) -> OnlineRun:
    """Two prompts a step, of which those of an even number have responses that earn 0, 1 and 2 more."""
    return settings(estimator=estimator, samples_per_prompt=GROUP, minibatch_size=2 * GROUP, **changes)


def test_a_step_is_learnt_as_pairs_and_a_group_without_spread_as_none(tmp_path: Path) -> None:
    world, _ = play(ranked(OnlineDpo(), num_steps=3), tmp_path)
    numbers = [int(request.prompt_id[1:]) for request in world.requests[::GROUP]]
    assert world.minibatch_sizes == [2, 2, 2] and len(numbers) == 6
    for step, batch in enumerate(world.batches):
        assert isinstance(batch, ResponsePairs)
        # A prompt is 3 and its number; a response is one token, 1.
        of_step = numbers[2 * step : 2 * step + 2]
        assert batch.is_pair.tolist() == [number % 2 == 0 for number in of_step]
        for side in (batch.chosen, batch.rejected):
            assert side.input_ids[:, 1].tolist() == of_step
            assert side.ref_logprobs.sum(dim=1).tolist() == [-10.0 if number % 2 == 0 else 0.0 for number in of_step]
    assert any(batch.is_pair.any() for batch in world.batches)


def test_a_step_is_learnt_as_the_best_of_each_group(tmp_path: Path) -> None:
    world, _ = play(ranked(BestOfN(), num_steps=3), tmp_path)
    for step, batch in enumerate(world.batches):
        assert isinstance(batch, Experience) and batch.num_rows == world.minibatch_sizes[step] == 2
        assert batch.advantages.sum(dim=1).tolist() == batch.loss_weights.sum(dim=1).tolist()
    assert {float(batch.advantages.sum()) for batch in world.batches} <= {0.0, 1.0, 2.0}


@pytest.mark.parametrize("loop", [run_online, run_online_asynchronous])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: estimator.kind)
@pytest.mark.parametrize(
    "changes", [{}, {"dynamic_sampling": DynamicSamplingSettings(max_rounds=3)}], ids=["", "rounds"]
)
def test_a_resumed_run_learns_what_one_that_was_not_stopped_does(
    tmp_path: Path, loop: Any, estimator: BestOfN | OnlineDpo, changes: dict[str, Any]
) -> None:
    run = ranked(estimator, max_staleness=1, **changes)
    whole, end = play(run, tmp_path, loop=loop)
    resumed, end_of_resumed = play(run, tmp_path, 3, loop)
    assert end.as_dict()["cursor"] == end_of_resumed.as_dict()["cursor"]
    for expected, found in zip(whole.batches[3:], resumed.batches, strict=True):
        assert type(found) is type(expected) and found.lengths.tolist() == expected.lengths.tolist()
        assert tokens(found).tolist() == tokens(expected).tolist()


def tokens(batch: Any) -> Any:
    return batch.stacked.input_ids if isinstance(batch, ResponsePairs) else batch.input_ids


def test_a_loss_that_is_not_finite_names_the_prompt_of_its_group(tmp_path: Path) -> None:
    run = ranked(OnlineDpo(), num_steps=1)
    world: Any = FakeOnlineWorld(None, 1)
    world.broken_rows = (1,)
    state = OnlineState(run, OnlineInput(PROMPTS, 0, ()))
    second = r"the rows are [345] \(prompt p\d\)"
    with pytest.raises(NotFinite, match=second) as caught:
        run_online(run, 0, state, OnlineWorkers(world, world, world), Checkpoints(tmp_path, 2), world)
    # Row 1 is the second prompt's pair, named after its best response: one of the last three of the six.
    assert f"prompt {world.requests[GROUP].prompt_id})" in str(caught.value)


def test_text_is_replayed_beside_each_pair(tmp_path: Path) -> None:
    block = TokenSequence(np.arange(3, dtype=np.int32), np.ones(3, np.bool_))
    run = ranked(OnlineDpo(), num_steps=1)
    world: Any = FakeOnlineWorld(None, 1)
    state = OnlineState(run, OnlineInput(PROMPTS, 0, (), replayed=PackedText((block,), 0, ())))
    run_online(run, 0, state, OnlineWorkers(world, world, world), Checkpoints(tmp_path, 2), world)
    (batch,) = world.batches
    assert isinstance(batch, WithReplay) and batch.replayed.input_ids.tolist() == [[0, 1, 2]] * 2
    assert batch.rows(np.array([1])).batch.num_rows == 1
