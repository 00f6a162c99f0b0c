"""Where a policy comes from (`lineage_of`): each stage behind it, what it read, by which code, who decided what."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside
from plumbob.driver.default_baseline import began_from
from plumbob.driver.result.places import shown_settings, without_places
from plumbob.driver.run_folder.folder import EVENTS_FILE
from plumbob.driver.run_folder.made_adapter import RunRecord, data_of, record_of
from plumbob.driver.run_folder.step_events import read_events

LINEAGE_FILE = "lineage.json"

DECISIONS = frozenset({"started", "resumed", "steered", "stopped", "failed"})
"""Events that somebody caused, or had to decide about."""


def lineage_of(policy: Path) -> dict[str, Any]:
    """The stages that made it, newest first, as JSON has them; none of a policy that lies where no run wrote it.

    Each has its `stage` and `run`, `began`, `seed`, `settings`, the `packages` and the `machine`, `inputs` (each a
    setting, its file and the digest of the rows), `models` (each with the digests of its files) and `decisions`: what
    was started, resumed, steered and ended, when and by whom, or why nobody can tell any more. No path of the machine
    stands in it. `began_from` is what the first of them began from, a base that none of these runs made; null where
    nobody knows, or it began from random weights.

    Args:
        policy: folder of an adapter or a full model.

    Raises:
        UserError: a file of one of the runs is damaged.
    """
    stages: list[dict[str, Any]] = []
    seen = set[Path]()
    current: Path | None = policy.resolve()
    base: str | None = None
    while current is not None and current not in seen:
        seen.add(current)
        run = record_of(current)
        if run is None:
            break
        stages.append(_stage(run))
        base = _base_of(current)
        current = Path(base).resolve() if base is not None and Path(base).is_absolute() else None
    return {"policy": policy.name, "stages": stages, "began_from": None if base is None else _name(base)}


def _base_of(policy: Path) -> str | None:
    """What the stage began from; as far as its settings are of this version."""
    try:
        return began_from(policy)
    except UserError:
        return None


def _stage(run: RunRecord) -> dict[str, Any]:
    machine = run.resolved.get("machine", {})
    return {
        "stage": run.stage,
        "run": run.folder.name,
        "began": run.resolved.get("time"),
        "seed": run.config.get("seed"),
        "settings": shown_settings(run.config),
        "packages": dict(run.resolved.get("packages", {})),
        "machine": {name: machine[name] for name in ("platform", "num_cpus", "memory_gib") if name in machine},
        "inputs": [
            {
                "setting": key.partition("=")[0],
                "file": None if data.file is None else Path(data.file).name,
                "digest": data.digest,
            }
            for key, data in data_of(run).items()
        ],
        "models": [{"model": _name(model), "files": dict(files)} for model, files in run.models.items()],
        "decisions": _decisions(run.folder),
    }


def _name(model: str) -> str:
    """Of a folder its own name alone; a name on a hub as it is."""
    return Path(model).name if Path(model).is_absolute() else model


def _decisions(run: Path) -> list[dict[str, Any]] | str:
    try:
        with from_outside(EVENTS_FILE):
            events = [event for event in read_events(run / EVENTS_FILE) if event.get("event") in DECISIONS]
    except UserError:
        return f"missing: {EVENTS_FILE} is not as a run writes it"
    return [_decision(event) for event in events]


def _decision(event: Mapping[str, Any]) -> dict[str, Any]:
    """Who is the user's name, without host and process."""
    by = event.get("by")
    who = by.get("user") if isinstance(by, Mapping) else None
    words = {name: without_places(event[name]) for name in ("what", "why") if name in event}
    return {"time": event.get("time"), "event": event["event"], "by": who, **words}
