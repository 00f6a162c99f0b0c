"""Whether a run is running, by what stands in its folder: nobody is asked, and no lock is taken (`state_of`)."""

import os
import re
import socket
import time
from typing import NamedTuple

from plumbob.console.web.run_files.run_content import json_lines, last_lines, text_at
from plumbob.console.web.run_files.run_index import RunLocation
from plumbob.driver.run_folder.folder import CLUSTER_FILE, EVENTS_FILE, SUMMARY_FILE
from plumbob.driver.run_folder.listed_run import SILENT_S
from plumbob.driver.run_folder.lock import LOCK_FILE

OWNER = re.compile(rb"process (\d{1,10}) on (\S{1,255}) ")
"""What a driver writes into its lock."""

ENDS = ("stopped", "failed", "refused")
MAX_EVENT_BYTES = 32 * 2**10


class RunLife(NamedTuple):
    """Attributes: state: "running", "finished" or "stopped". why: it is stopped; None otherwise."""

    state: str
    why: str | None


def state_of(location: RunLocation, updated: float) -> RunLife:
    """`updated`: when its files changed last, in seconds since 1970."""
    silent = _silence(location, updated)
    if silent == "":
        return RunLife("running", None)
    if location.file(SUMMARY_FILE) is not None:
        return RunLife("finished", None)
    return RunLife("stopped", _recorded_end(location) or silent or "its driver ended without a word; it can be resumed")


def _silence(location: RunLocation, updated: float) -> str | None:
    """Empty where a driver is at work; otherwise why that is not so; None where no driver left a sign."""
    lock = location.file(LOCK_FILE)
    if lock is None:  # A file system that keeps no locks has the file of the connection alone.
        has_connection = location.file(CLUSTER_FILE) is not None
        return _if_silent("its driver", updated) if has_connection else None
    try:
        owner = OWNER.match(lock.read_bytes()[:1000])
    except OSError:
        owner = None
    if owner is None:
        return _if_silent("its driver", updated)
    pid, host = int(owner[1]), owner[2].decode("utf-8", "replace")
    if host != socket.gethostname():
        return _if_silent(f"its driver on {host}", updated)
    return "" if _lives(pid) else f"its driver, process {pid}, died; it can be resumed"


def _if_silent(who: str, updated: float) -> str:
    silent_s = time.time() - updated
    return "" if silent_s < SILENT_S else f"{who} has written nothing for {silent_s / 60:.0f} minutes"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _recorded_end(location: RunLocation) -> str | None:
    """What the run recorded last of its end, if nothing began after it."""
    events, _ = json_lines(last_lines(location.file(EVENTS_FILE), MAX_EVENT_BYTES))
    kind = text_at(events[-1], "event") if events else None
    return text_at(events[-1], "why") or kind if kind in ENDS else None
