"""What a process is doing, seen from another thread."""

import threading

import pytest

from plumbob.core.activities import Activities


def doing(activities: Activities) -> list[str]:
    return [activity.doing for activity in activities.now()]


def test_the_innermost_is_shown_and_what_is_around_it_again_after_it() -> None:
    activities = Activities()
    with activities.during("a stage"):
        with activities.during("reading the data"):
            assert doing(activities) == ["reading the data"]
        assert doing(activities) == ["a stage"]
    assert doing(activities) == []


def test_one_that_failed_is_over() -> None:
    activities = Activities()
    with pytest.raises(ValueError, match="no data"), activities.during("reading the data"):
        raise ValueError("no data")
    assert doing(activities) == []


def test_threads_are_shown_side_by_side_the_oldest_first() -> None:
    activities, is_under_way, is_seen = Activities(), threading.Event(), threading.Event()

    def load() -> None:
        with activities.during("loading the model"):
            is_under_way.set()
            assert is_seen.wait(60)

    with activities.during("starting the workers"):
        thread = threading.Thread(target=load)
        thread.start()
        assert is_under_way.wait(60)
        assert doing(activities) == ["starting the workers", "loading the model"]
        is_seen.set()
        thread.join(60)
        assert doing(activities) == ["starting the workers"]
