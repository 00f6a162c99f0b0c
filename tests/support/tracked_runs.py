"""A run as its sinks elsewhere see it: two stages, a stop after the second's first step, and the resume."""

from pathlib import Path
from time import sleep, time

from plumbob.configs.settings.metrics.sinks import SinkSettings
from plumbob.trainers.metrics.sinks.metric_sink import MetricSink
from plumbob.trainers.metrics.sinks.tracked_run import TrackedRun
from plumbob.trainers.metrics.sinks.trackers import open_tracker
from plumbob.trainers.metrics.step_record import StepRecord

SETTINGS = {"kind": "pipeline", "seed": 3, "online": {"learning_rate": 0.001, "kl": {"kind": "fixed"}}, "sinks": []}
TIME = 1_790_000_000.0
"""Of the first step, in seconds since 1970; each takes a second."""


def tracked_run(folder: Path) -> TrackedRun:
    return TrackedRun("align", "pipeline", folder, SETTINGS)


def tracked_step(stage: str, step: int, **metrics: float) -> StepRecord:
    return StepRecord(stage, step, 2, metrics, {"learn": 0.25})


def write_stopped_and_resumed(settings: SinkSettings, folder: Path) -> None:
    """sft 1, 2 and ppo 1 in a run that is stopped; ppo 2 in the one that resumes it."""
    first = open_tracker(settings, tracked_run(folder))
    first.append(tracked_step("sft", 1, loss=2.0), TIME)
    first.append(tracked_step("sft", 2, loss=1.5), TIME + 1)
    first.append(tracked_step("ppo", 1, kl=0.25, explained_variance=float("nan")), TIME + 2)
    first.close(True)
    ended = int(time())
    while int(time()) == ended:  # W&B calls its folders by the second.
        sleep(0.05)
    second: MetricSink = open_tracker(settings, tracked_run(folder))
    second.truncate_after(1)
    second.append(tracked_step("ppo", 2, kl=0.5), TIME + 3)
    second.close(False)
