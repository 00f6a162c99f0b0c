"""An empty working folder for every test, and the signals of a terminal; what all of them import is let alone."""

import gc
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support.source_tree import ROOT

# torch reads it as it is imported, which is after this. Tests run beside one another, and neither they nor runs of
# theirs must fight for cores: of two threads that do not run at once each waits for the other by spinning.
os.environ["OMP_NUM_THREADS"] = "1"

# How long an example takes says how busy the machine is.
settings.register_profile("any_machine", deadline=None)
settings.load_profile("any_machine")

# What is imported to collect the tests stays until the end: Python's collector frees nothing of it, again and again.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def empty_working_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test finds what lies where pytest was started, such as the demo's `runs/`, and none leaves anything there."""
    folder = tmp_path_factory.mktemp("working_folder")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # As workers of a run's own Ray, also where tests start one by themselves.
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)  # Processes that tests start import from the tree.
        yield
    left = sorted(path.name for path in folder.iterdir())
    assert not left, f"tests wrote {left} into the working folder: each has a tmp_path for that"


@pytest.fixture(scope="session", autouse=True)
def signals_of_a_terminal() -> Iterator[None]:
    """SIGHUP and SIGINT do what they do by default, for tests that send them, also below nohup and behind `&`."""
    defaults = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
