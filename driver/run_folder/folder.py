"""The folder of a run: where it is, that it can be written, and that what ends before any result leaves nothing."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from plumbob.configs.resolved_copy import RESOLVED_FILE
from plumbob.configs.runs import Run
from plumbob.configs.validation import nearest, shortened
from plumbob.core.errors import RunStopped, UserError
from plumbob.core.outside import from_outside, read_json_object

RUNS = Path("runs")
"""Where runs are unless `storage.path` says otherwise."""

SUMMARY_FILE = "summary.json"
SAMPLES_FILE = "samples.jsonl"
DRIVER_LOG = "driver.log"
STATUS_FILE = "status.json"
CLUSTER_FILE = "cluster.json"
LOGS_FOLDER = "logs"
EVENTS_FILE = "events.jsonl"
TRACE_FILE = "trace.json"

INPUTS_FILE = "inputs.json"
"""Setting that names files -> digest of their rows when the run began."""

MODELS_FILE = "models.json"
"""Name of a model -> file -> its digest when the run began."""

COMPUTED = ("**/metrics.jsonl", "**/checkpoints/latest", "**/rollouts/*.parquet", "**/summary.json")
"""What stands in a run's folder, not empty, once something has been computed."""

TELLING = (f"{LOGS_FOLDER}/*", DRIVER_LOG, EVENTS_FILE, TRACE_FILE)
"""What stands there that tells why a run failed."""


def run_folder(config: Run) -> Path:
    """Where the run is, or will be."""
    return Path(config.storage.path) / config.name


def find_run(run: str | Path) -> Path:
    """The folder that RUN means: one that holds a run, or a run's name below `runs/`. UserError when it is neither."""
    with from_outside(f"{shortened(str(run))}: cannot be looked for", "give the folder of a run that may be read"):
        for folder in (Path(run), RUNS / run):
            if (folder / RESOLVED_FILE).is_file():
                return folder
    known = sorted(path.parent.name for path in RUNS.glob(f"*/{RESOLVED_FILE}"))
    close = nearest(str(run), known)
    hint = f"did you mean {close}?" if close else f"runs here: {', '.join(known) or 'none'}"
    raise UserError(f"{run}: there is no run in this folder nor in {RUNS / run}; {hint}")


def summary_of_finished(folder: Path) -> dict[str, Any] | None:
    """What a run that ended well left as `summary.json`; None of any other. Raises UserError where it is damaged."""
    path = folder / SUMMARY_FILE
    if not path.is_file():
        return None
    what, fix = f"{path}: expected the summary of a finished run as JSON", "delete it to have the run measured again"
    return read_json_object(path, what, fix)


def check_writable(folder: Path) -> None:
    """Raises UserError when the folder can neither be written nor be made. Leaves nothing behind."""
    try:
        closest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=closest):
            return
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"storage.path: {folder} cannot be written: {reason}; set storage.path to a folder that can be"
        ) from error


def is_computed(folder: Path) -> bool:
    """Whether something has been computed in it."""
    return any(path.stat().st_size for pattern in COMPUTED for path in folder.glob(pattern))


@contextmanager
def removed_if_nothing_computed(folder: Path) -> Iterator[None]:
    """An end before anything was computed, whatever is its reason, leaves the run's name free.

    A user error or a stop from inside removes all that was written there meanwhile: a run that only a worker could
    refuse, or that was ended while it booted. A failure leaves what tells why: logs and the record of events.
    """
    before = {path for path in (folder, *folder.absolute().parents) if path.exists()} | set(folder.rglob("*"))
    try:
        yield
    except (UserError, RunStopped, KeyboardInterrupt):
        if not is_computed(folder):
            _remove_except(before, folder)
        raise
    except Exception:
        if not is_computed(folder):
            _remove_except(before.union(*(folder.glob(pattern) for pattern in TELLING)), folder)
        raise


def _remove_except(before: set[Path], folder: Path) -> None:
    """Files first, then the folders that are empty by then, from the innermost out."""
    inside = sorted(folder.rglob("*"), key=lambda path: len(path.parts), reverse=True)
    for path in (*inside, folder, *folder.absolute().parents):
        if path in before:
            continue
        if path.is_dir() and not path.is_symlink():
            with suppress(OSError):  # Something of an earlier call's, or of somebody else's, is in it.
                path.rmdir()
        else:
            path.unlink(missing_ok=True)
