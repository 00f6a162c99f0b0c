"""SIGTERM and SIGHUP, sent for real: to this process where the first is handled, to another where the second kills."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from plumbob.core.errors import RunPreempted
from plumbob.core.process_ends.stop_signals import AGAIN_S, StopSignals

BOUND_S = 30.0


@pytest.fixture
def signals() -> Iterator[StopSignals]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield StopSignals()
    assert {number: signal.getsignal(number) for number in before} == before


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.05)  # The handler runs before the next instruction but one.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_where_nothing_is_lost_the_first_ends_the_run_at_once(signals: StopSignals, number: signal.Signals) -> None:
    with pytest.raises(RunPreempted, match=rf"^{number.name}: the run was asked to stop$"), signals.handled("never"):
        send(number)
        raise AssertionError("continued")


def test_while_the_run_works_the_first_is_told_and_waits_to_be_asked_for(
    signals: StopSignals, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RunPreempted), signals.handled("the step is ended"):
        signals.work_began()
        signals.check()
        send(signal.SIGTERM)
        assert capfd.readouterr().err == "plumbob: SIGTERM: the step is ended\n"
        signals.check()
        raise AssertionError("continued")


def test_after_the_work_nothing_is_lost_again(signals: StopSignals) -> None:
    with pytest.raises(RunPreempted), signals.handled("noted"):
        signals.work_began()
        signals.work_ended()
        send(signal.SIGTERM)
        raise AssertionError("continued")
    with pytest.raises(RunPreempted), signals.handled("noted"):
        signals.work_began()
        send(signal.SIGTERM)
        signals.work_ended()
        raise AssertionError("continued")


def test_one_that_arrives_after_the_last_question_changes_nothing(signals: StopSignals) -> None:
    with signals.handled("noted"):
        signals.work_began()
        send(signal.SIGTERM)
    signals.work_ended()  # The next run was not asked, nor one that handles none.
    with signals.handled("noted"):
        signals.check()


def test_ctrl_c_stays_what_it_was(signals: StopSignals) -> None:
    with pytest.raises(KeyboardInterrupt), signals.handled("noted"):
        send(signal.SIGINT)


def test_a_library_that_takes_the_signals_keeps_none(signals: StopSignals) -> None:
    """One that arrives meanwhile waits, and is ours."""
    taken: list[int] = []
    with pytest.raises(RunPreempted), signals.handled("noted"), signals.held():
        signal.signal(signal.SIGTERM, lambda number, _: taken.append(number))
        # To this thread: of those to the process another thread may take one.
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        time.sleep(0.05)
        signals.check()  # It waits still.
    assert taken == []
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_an_ignored_signal_stays_ignored_and_another_thread_handles_none(signals: StopSignals) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # As nohup does.
    try:
        with signals.handled("noted"):
            send(signal.SIGHUP)
            signals.check()
    finally:
        signal.signal(signal.SIGHUP, before)
    found: list[object] = []

    def elsewhere() -> None:
        with signals.handled("noted"), signals.held():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(BOUND_S)
    assert found == [signal.getsignal(signal.SIGTERM)]


WORKING = """
import sys, time
from plumbob.core.process_ends.stop_signals import stop_signals
with stop_signals.handled("noted"):
    stop_signals.work_began()
    print("working", flush=True)
    while True:
        time.sleep(0.1)
        print("still", file=sys.stderr, flush=True)
        try:
            stop_signals.check()
        except Exception:
            {then}
"""


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGHUP])
def test_the_second_ends_the_process_at_once(second: signal.Signals) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKING.format(then="pass")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert worker.stdout is not None and worker.stdout.readline() == "working\n"
        for _ in range(3):  # `timeout` signals the process, and then its group: they are one.
            worker.send_signal(signal.SIGTERM)
            time.sleep(0.1)
        time.sleep(AGAIN_S)
        assert worker.poll() is None
        worker.send_signal(second)
        assert "plumbob: SIGTERM: noted\n" in worker.communicate(timeout=BOUND_S)[1]
        assert worker.returncode == -second
    finally:
        worker.kill()
        worker.wait()


def test_a_terminal_that_is_gone_is_no_error_at_the_next_line() -> None:
    """Its end hangs up the terminal for real: the kernel sends SIGHUP, and every write to it would fail."""
    process, terminal = pty.fork()
    if process == 0:
        code = WORKING.format(then="time.sleep(0.5); print('more', flush=True); sys.exit(75)")
        os.execv(sys.executable, [sys.executable, "-c", code])
    assert b"working" in os.read(terminal, 100)
    os.close(terminal)
    deadline = time.monotonic() + BOUND_S
    while (ended := os.waitpid(process, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert os.waitstatus_to_exitcode(ended[1]) == 75
