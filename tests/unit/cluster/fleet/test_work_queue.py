"""In which chunks items are handed out, taken back and continued."""

import pytest

from plumbob.cluster.failures import WorkerLost
from plumbob.cluster.fleet.work_queue import WorkBatch
from plumbob.core.errors import RunFailed
from plumbob.reward.scorer import ScoreError


def countdown(items: list[int], chunk_size: int) -> WorkBatch:
    """A number stands for how many more times it has to be handed out; its value is one less, and final at 0."""
    return WorkBatch(
        items,
        chunk_size,
        lambda actor, chunk: None,
        "counting",
        lambda left: left or None,
        lambda items, call, result: result,
    )


def test_what_is_unfinished_is_taken_as_soon_as_it_fills_a_chunk() -> None:
    job = countdown([1, 2, 2, 1, 2, 1], 2)
    chunks = [job.take()]
    assert job.record_values((0, 1), [0, 1]) == 1
    # One is unfinished, which fills no chunk: new items first.
    chunks.append(job.take())
    assert job.record_values((2, 3), [1, 0]) == 1
    # Places 1 and 2 fill one now, and go before the items that nobody has begun.
    chunks += [job.take(), job.take(), job.take()]
    assert chunks == [(0, 1), (2, 3), (1, 2), (4, 5), None]
    assert job.items((1, 2)) == [1, 1]
    assert job.record_values((1, 2), [0, 0]) == 2
    assert job.record_values((4, 5), [1, 0]) == 1
    # Nothing else is left: a chunk of one.
    assert not job.is_done
    assert job.take() == (4,)
    assert job.record_values((4,), [0]) == 1
    assert job.is_done and job.results() == [0] * 6


def test_a_lost_chunk_is_handed_out_again_with_what_was_there_when_it_was_taken() -> None:
    job = countdown([3, 3, 1], 2)
    assert (job.take(), job.record_values((0, 1), [2, 2])) == ((0, 1), 0)
    assert job.take() == (0, 1)
    job.requeue((0, 1))
    assert job.take() == (0, 1) and job.items((0, 1)) == [2, 2]


def test_a_chunk_that_went_on_is_forgiven_what_it_cost() -> None:
    job, lost = countdown([3, 3, 1], 2), WorkerLost("rollout-0 died")
    assert (job.take(), job.take()) == ((0, 1), (2,))
    for chunk in ((0, 1), (2,)):
        job.count_loss(chunk, lost, 1)
    job.record_values((0, 1), [2, 2])
    job.count_loss((0, 1), lost, 1)
    with pytest.raises(
        RunFailed, match=r"^rollout-0 died\nthat is worker number 2 to be lost while it was counting the"
    ):
        job.count_loss((2,), lost, 1)


def test_rows_of_an_error_are_those_of_all_items() -> None:
    job = countdown([1, 2, 2, 1, 2], 2)
    # Rows 0 and 1 of a chunk of places 4 and 1.
    error = job.counted_over_all(ScoreError("a score is not finite", (0, 1)), (4, 1))
    assert str(error) == "a score is not finite (row 4, 1 of the batch of 5)" and error.rows == (4, 1)
