"""The sinks of a run that are somewhere else: which there are, whether they can be, and their whole life."""

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol, cast

from plumbob.configs.runs import Run, TrainingRun
from plumbob.configs.settings.metrics.sinks import OpenTelemetrySettings, SinkSettings
from plumbob.core.errors import UserError
from plumbob.trainers.metrics.sinks.guarded_sink import GuardedSink
from plumbob.trainers.metrics.sinks.metric_sink import MetricSink
from plumbob.trainers.metrics.sinks.opentelemetry import ENDPOINT
from plumbob.trainers.metrics.sinks.tracked_run import TrackedRun


class TrackerModule(Protocol):
    """The module of this folder that is called as the kind of a tracker."""

    NEEDED: str
    """The package's module that it is for; the extra of Plumbob that installs it is called as the kind."""

    def open_sink(self, settings: SinkSettings, run: TrackedRun) -> MetricSink:
        """Whatever its package raises."""


def tracker_module(kind: str) -> TrackerModule:
    """The package that it is for is not imported by that."""
    return cast(TrackerModule, importlib.import_module(f"{__package__}.{kind}"))


def trackers_of(config: Run) -> tuple[SinkSettings, ...]:
    """Those that the settings name, and a collector where the environment does."""
    if not isinstance(config, TrainingRun):
        return ()
    is_named = any(isinstance(sink, OpenTelemetrySettings) for sink in config.sinks)
    return config.sinks if is_named or not os.environ.get(ENDPOINT) else (*config.sinks, OpenTelemetrySettings())


def check_trackers(config: Run) -> None:
    """Raises UserError where a package is not installed that a sink of the settings needs. Imports none of them."""
    for sink in config.sinks if isinstance(config, TrainingRun) else ():
        needed = tracker_module(sink.kind).NEEDED
        if not _is_installed(needed):
            raise UserError(
                f"sinks: kind {sink.kind} needs the package {needed.partition('.')[0]}, which is not "
                f"installed here; install it with: pip install 'plumbob[{sink.kind}]'"
            )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # Of a package that it is in.
        return False


@contextmanager
def opened_trackers(config: Run, folder: Path, notify: Callable[[str], None]) -> Iterator[tuple[MetricSink, ...]]:
    """The run's sinks, which are opened beside the run and closed with the block.

    Args:
        folder: of the run.
        notify: for the user, once for each that fails.
    """
    run = TrackedRun(config.name, config.stage, folder, config.model_dump(mode="json"))
    sinks = tuple(GuardedSink(sink.kind, partial(open_tracker, sink, run), notify) for sink in trackers_of(config))
    has_failed = True
    try:
        yield sinks
        has_failed = False
    finally:
        for one in sinks:
            one.close(has_failed)


def open_tracker(settings: SinkSettings, run: TrackedRun) -> MetricSink:
    """Whatever its package raises."""
    return tracker_module(settings.kind).open_sink(settings, run)
