"""The line of each run in the list of runs: state, stage, step, reward, time left, cost (`RunFacts`)."""

import threading
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from plumbob.configs.resolved_copy import RESOLVED_FILE, TIME_FORMAT, config_of, configured_stage
from plumbob.console.web.run_files.run_content import (
    at,
    finite_number,
    json_lines,
    last_lines,
    list_at,
    number_at,
    object_at,
    read_object,
    text_at,
)
from plumbob.console.web.run_files.run_index import SEPARATOR, RunLocation
from plumbob.console.web.run_files.run_state import state_of
from plumbob.driver.run_folder.folder import EVENTS_FILE, STATUS_FILE, SUMMARY_FILE
from plumbob.driver.run_folder.lock import LOCK_FILE
from plumbob.trainers.metrics.sinks.jsonl import METRICS_FILE
from plumbob.trainers.online.step_metrics import ALARM

TAIL_BYTES = 48 * 2**10
"""Of a file of metrics: some twenty steps, by which the time that is left is told."""

HEADLINES = {"reward": "reward", "kl": "kl", "heldout_loss": "heldout_loss"}
OFTEN_WRITTEN = (RESOLVED_FILE, SUMMARY_FILE, STATUS_FILE, EVENTS_FILE, LOCK_FILE)

Signature = tuple[tuple[str, int, int], ...]


class RunFacts:
    """Read anew only of a run whose files have changed; asked from several threads."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Signature, dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def of(self, location: RunLocation) -> dict[str, Any]:
        """What a page is given of a run; never raises for what is damaged."""
        stages = location.stage_folders()
        signature = tuple(_signature(location, stages))
        with self._lock:
            known = self._known.get(location.id)
        if known is None or known[0] != signature:
            known = signature, _facts(location, stages, signature)
            with self._lock:
                self._known[location.id] = known
        return _as_of_now(location, known[1])

    def keep(self, ids: Mapping[str, Any]) -> None:
        """Forget runs that are no longer there."""
        with self._lock:
            self._known = {run_id: known for run_id, known in self._known.items() if run_id in ids}


def _signature(location: RunLocation, stages: list[str]) -> Iterator[tuple[str, int, int]]:
    own = [(name,) for name in OFTEN_WRITTEN]
    for parts in (*own, *((stage, name) for stage in stages for name in (METRICS_FILE, SUMMARY_FILE))):
        try:
            found = location.folder.joinpath(*parts).stat()
        except (OSError, ValueError):
            continue
        yield "/".join(parts), found.st_mtime_ns, found.st_size


def _facts(location: RunLocation, folders: list[str], signature: Signature) -> dict[str, Any]:
    damaged: list[str] = []
    resolved = read_object(location.file(RESOLVED_FILE), damaged)
    summary = read_object(location.file(SUMMARY_FILE), damaged)
    status = read_object(location.file(STATUS_FILE), damaged)
    updated = max((changed / 1e9 for name, changed, _ in signature if name != RESOLVED_FILE), default=0.0)
    began = _when_begun(resolved)
    if began is None:
        began = min((changed / 1e9 for _, changed, _ in signature), default=0.0)
    stages, newest = _stages(location, folders, summary, damaged)
    config = config_of(resolved)
    metrics = {name: value for tail in newest for name, value in _metrics(tail).items()}
    alarms = [alarm for name in object_at(summary, "stages") for alarm in list_at(summary, "stages", name, "monitors")]
    num_live = sum(name.startswith(ALARM) for name in _metrics(newest[-1])) if newest else 0
    return {
        "id": location.id,
        "name": text_at(config, "name") or location.folder.name,
        "kind": configured_stage(config) or text_at(summary, "kind") or "run",
        "began": began,
        "updated": updated or began,
        "seconds": number_at(summary, "seconds_total"),
        "cpus": _reserved(status, "num_cpus"),
        "gpus": _reserved(status, "num_gpus"),
        **{shown: finite_number(metrics.get(name)) for shown, name in HEADLINES.items()},
        "model": _model(config),
        "stages": stages,
        "alarms": len(alarms) or num_live,
        "damaged": f"{', '.join(dict.fromkeys(damaged))} cannot be read" if damaged else None,
        "step_s": _step_s(newest[-1]) if newest else None,
    }


def _as_of_now(location: RunLocation, facts: Mapping[str, Any]) -> dict[str, Any]:
    """With what changes though no file does."""
    shown = dict(facts)
    cpus, gpus, step_s = (shown.pop(name) for name in ("cpus", "gpus", "step_s"))
    life = state_of(location, shown["updated"])
    is_running = life.state == "running"
    if is_running or shown["seconds"] is None:
        shown["seconds"] = max((time.time() if is_running else shown["updated"]) - shown["began"], 0.0)
    hours = shown["seconds"] / 3600
    stage = shown["stages"][-1] if shown["stages"] else {"name": None, "step": None, "num_steps": None}
    left = None
    if is_running and step_s is not None and stage["num_steps"] and stage["step"] is not None:
        left = max(step_s * (stage["num_steps"] - stage["step"]) - (time.time() - shown["updated"]), 0.0)
    return shown | {
        "state": life.state,
        "why": life.why,
        "stage": stage["name"],
        "step": stage["step"],
        "num_steps": stage["num_steps"],
        "seconds_left": left,
        "cpu_hours": None if cpus is None else cpus * hours,
        "gpu_hours": None if gpus is None else gpus * hours,
    }


# --------------------------------------------------------------------------------------------------------------- parts


def _stages(
    location: RunLocation, folders: list[str], summary: Mapping[str, Any], damaged: list[str]
) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]:
    """Each stage's line, and the newest records of those that have some."""
    stages, newest = [], []
    done = object_at(summary, "stages")
    for folder in folders:
        path = location.file(folder, METRICS_FILE)
        records, num_damaged = json_lines(last_lines(path, TAIL_BYTES))
        if num_damaged:
            damaged.append(f"{folder}/{METRICS_FILE}".lstrip("/"))
        last = records[-1] if records else {}
        name = text_at(last, "stage") or folder or next(iter(done), None)
        if name is None:
            continue
        if records:
            newest.append(records)
        own = location.id if not folder else f"{location.id}{SEPARATOR}{folder}"
        ended = name in done or (folder != "" and location.file(folder, SUMMARY_FILE) is not None)
        step, num_steps = number_at(last, "step"), number_at(last, "num_steps")
        stages.append({"name": name, "id": own, "step": step, "num_steps": num_steps, "is_finished": ended})
    return stages, newest


def _metrics(records: list[dict[str, Any]]) -> Mapping[str, Any]:
    metrics: Mapping[str, Any] = {}
    for record in records:
        found = at(record, "metrics")
        if isinstance(found, Mapping):
            metrics = {name: value for name, value in metrics.items() if name.startswith("heldout_")} | dict(found)
    return metrics


def _step_s(records: list[dict[str, Any]]) -> float | None:
    """Seconds from one step to the next, of the newest."""
    timed = [(number_at(record, "step"), number_at(record, "time")) for record in records]
    known = [(step, when) for step, when in timed if step is not None and when is not None]
    if len(known) < 2:
        seconds = at(records[-1], "seconds") if records else None
        values = [finite_number(value) for value in seconds.values()] if isinstance(seconds, Mapping) else []
        return sum(value for value in values if value is not None) or None
    (first, began), (last, ended) = known[0], known[-1]
    return (ended - began) / (last - first) if last > first and ended > began else None


def _when_begun(resolved: Mapping[str, Any]) -> float | None:
    try:
        return datetime.strptime(text_at(resolved, "time") or "", TIME_FORMAT).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _model(config: Any) -> str | None:
    """The last part of the folder or hub name."""
    for group in ("policy", "encoder", "reward"):
        model = at(config, group, "model")
        if isinstance(model, str):
            return Path(model).name or model
        if isinstance(model, Mapping):
            return f"new {text_at(model, 'kind') or 'model'}"
    return None


def _reserved(status: Mapping[str, Any], unit: str) -> float | None:
    """CPUs or GPUs that the workers of the last status had asked for."""
    of_role = {text_at(need, "role"): number_at(need, unit) for need in list_at(status, "least")}
    workers = at(status, "workers")
    if not of_role or not isinstance(workers, Mapping):
        return None
    return sum((of_role.get(role) or 0.0) * len(rows) for role, rows in workers.items() if isinstance(rows, list))
