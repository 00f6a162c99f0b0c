"""A private Ray on this machine: its processes in groups of their own, so that signals to the driver's reach none."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray._private import services
from ray._private.services import ConsolePopen

from plumbob.core.stop_signals import SIGNALS


class RayProcess(ConsolePopen):
    """A process of Ray in a process group of its own, which holds no signals.

    A terminal that is closed, `timeout` and a shell signal the whole group of the driver: were Ray in it, nobody would
    be left to end the step with. The kernel ends these processes when the driver is dead, however it died.
    """

    def __init__(self, *arguments: Any, preexec_fn: Callable[[], None], **options: Any) -> None:
        def prepare() -> None:
            preexec_fn()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

        super().__init__(*arguments, preexec_fn=prepare, process_group=0, **options)


@contextmanager
def own_process_groups() -> Iterator[None]:
    """Processes that Ray starts inside are `RayProcess`es."""
    services.ConsolePopen = RayProcess
    try:
        yield
    finally:
        services.ConsolePopen = ConsolePopen
