"""The resolved copy of a run's settings in its folder: written when it begins, read and added to when it resumes."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from plumbob.configs.environment import environment
from plumbob.configs.load_run import build_run
from plumbob.configs.renamed_keys import with_new_names
from plumbob.configs.resume_rules import changes, check_changes
from plumbob.configs.runs import AnyRun
from plumbob.configs.settings.algorithms import algorithm_with
from plumbob.configs.validation import describe
from plumbob.configs.yaml_files import Source, overridden
from plumbob.core.atomic_files import write_atomically
from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside, read_json_object

RESOLVED_FILE = "resolved.json"
NO_SOURCES: Mapping[str, str] = MappingProxyType({})
TIME_FORMAT = "%Y-%m-%dT%H:%M:%S%z"


def write_resolved(
    run: AnyRun, folder: Path, began: datetime | None = None, sources: Mapping[str, str] = NO_SOURCES
) -> None:
    """Write `resolved.json`: the whole configuration, when the run began, the digests of `sources`, by the user's
    functions that stand in them, the versions of the packages, the machine and the git commit.

    Where a run resumes, those that it began with stay, and an entry of `resumed` says what they are now, which
    settings have changed, from what and to what. None for `began` is now.
    """
    config, made_with = run.model_dump(mode="json"), environment()
    path = folder / RESOLVED_FILE
    if path.exists():
        content = json.loads(path.read_text())
        changed = changes(with_new_names(content["config"]), config)
        resumed = {"time": time.strftime(TIME_FORMAT), "changed": changed, **made_with}
        content |= {"config": config, "resumed": [*content.get("resumed", []), resumed]}
    else:
        time_begun = (began or datetime.now()).astimezone().strftime(TIME_FORMAT)
        content = {"time": time_begun, "config": config, "sources": dict(sources), **made_with}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, indent=2) + "\n")


class Begun(NamedTuple):
    """How the run in a folder began.

    Attributes:
        time: of the place where it did; now where none has, or where it does not say.
        sources: function of the user's -> digest of its source then; none where none has.
    """

    time: datetime
    sources: dict[str, str]


def read_begun(folder: Path) -> Begun:
    path = folder / RESOLVED_FILE
    what = f"{path}: expected the settings of a run as JSON"
    with from_outside(what):
        content = read_json_object(path, what) if path.exists() else {}
        time_begun = content.get("time")
        began = (
            datetime.now().replace(microsecond=0)
            if time_begun is None
            else datetime.strptime(time_begun, TIME_FORMAT).replace(tzinfo=None)
        )
        return Begun(began, dict(content.get("sources", {})))


def config_of(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a resolved copy by the names that they have now; as they stand where they are damaged, and none
    where there are none.
    """
    config = resolved.get("config")
    if not isinstance(config, dict):
        return {}
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        return with_new_names(config)
    return config


def configured_stage(config: Mapping[str, Any]) -> str | None:
    """What the one stage of a run with these settings is called, as `Run.stage` has it; None where they do not say."""
    kind, group = config.get("kind"), config.get("online")
    estimator = group.get("estimator") if isinstance(group, Mapping) else None
    name = estimator.get("kind") if isinstance(estimator, Mapping) else None
    if kind == "online":
        return algorithm_with(name if isinstance(name, str) else "gae")
    return kind if isinstance(kind, str) else None


def read_resolved(folder: Path, overrides: Sequence[str] = ()) -> AnyRun:
    """The configuration of a run that has begun, with the overrides of what may change when it resumes.

    Raises:
        UserError: the folder holds none, an override is wrong, or it would change what the run computes.
    """
    path = folder / RESOLVED_FILE
    what = f"{path}: expected the settings of a run as JSON"
    with from_outside(what):
        if not path.exists():
            raise UserError(f"{folder}: this is no run: it has no {RESOLVED_FILE}")
        config = read_json_object(path, what).get("config")
        if not isinstance(config, dict):
            raise UserError(f"{path}: expected the settings of a run below `config`, found {describe(config)}")
        began = Source(str(path), with_new_names(config))
    run = build_run(overridden(began, overrides))
    if overrides:
        check_changes(type(run), changes(build_run(began).model_dump(mode="json"), run.model_dump(mode="json")))
    return run
