"""Groups of workers that are started concurrently, which takes as long as the slowest."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from typing import Any

from plumbob.cluster.failures import LearnersLost
from plumbob.core.errors import RunFailed, UserError, first_line

ENDING_S = 60.0
"""What a failure waits for workers that are being started beside it."""


def run_concurrently(notify: Callable[[str], None], *tasks: Callable[[], Any]) -> list[Any]:
    """Results of all. The first error is raised when the others have ended too, or soon: they end with the session.

    Args:
        notify: shows the user what an error waits for.
    """
    threads = ThreadPoolExecutor(len(tasks))
    running = [threads.submit(task) for task in tasks]
    try:
        for ended in as_completed(running):
            ended.result()
        return [each.result() for each in running]
    except (UserError, RunFailed) as error:
        # A stage that lost its learners begins again with what the others start; no other continues.
        bound = None if isinstance(error, LearnersLost) else ENDING_S
        if not all(each.done() for each in running):
            limit = "" if bound is None else f" for up to {bound:g} s"
            notify(f"{first_line(error)}; waiting{limit} for the workers that are being started beside")
        wait(running, bound)
        raise
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
