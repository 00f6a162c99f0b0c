"""Folders of runs as `plumbob ui` finds them: finished, in progress, and many."""

import json
import os
import shutil
import socket
from pathlib import Path

from plumbob.driver.run_folder.folder import EVENTS_FILE, SUMMARY_FILE
from plumbob.driver.run_folder.lock import LOCK_FILE
from plumbob.trainers.metrics.sinks.jsonl import METRICS_FILE
from tests.support.finished_run import HOSTILE, finished_pipeline, finished_run, write_metrics

BY = {"user": HOSTILE, "host": "host-1", "process": 7}
EVENTS = (
    {"event": "started", "name": "grpo"},
    {"event": "published", "stage": "ppo", "version": 0},
    {"event": "lost", "slot": "rollout-1", "why": HOSTILE},
    {"event": "replaced", "worker": "rollout-1", "on": "host-2"},
    {"event": "steered", "what": f"rollout workers: 2 become 3 {HOSTILE}"},
    {"event": "saved", "stage": "ppo", "step": 10, "folder": "checkpoints/step-000010"},
)


def served_runs(root: Path) -> Path:
    """A pipeline, an online and an offline run that are finished, and one in progress, with hostile text wherever
    somebody else may have written it."""
    finished_pipeline(root / "toy")
    grpo = finished_run(root / "grpo", "ppo", {"first_train_reward": 0.1, "train_reward": 0.6, "notes": [HOSTILE]})
    finished_run(root / "dpo", "dpo", {"heldout_loss": 0.489, "heldout_accuracy": 0.775})
    add_events(grpo)
    (grpo / "logs").mkdir()
    (grpo / "logs" / "rollout-0.log").write_text(f"2026-12-01T03:00:00.000Z {HOSTILE}\n")
    growing_run(root / "growing", num_steps=12)
    return root


def add_events(run: Path) -> None:
    lines = [{"time": f"2026-12-01T03:00:0{index}.000Z", "by": BY, **event} for index, event in enumerate(EVENTS)]
    (run / EVENTS_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))


def growing_run(run: Path, num_steps: int) -> Path:
    """One whose driver is at work: this process."""
    finished_run(run, "ppo", {}, num_steps)
    (run / SUMMARY_FILE).unlink()
    (run / LOCK_FILE).write_text(f"process {os.getpid()} on {socket.gethostname()} since now\n")
    add_events(run)
    return run


def add_steps(run: Path, first: int, last: int) -> None:
    """Append the steps' lines, as a run does."""
    write_metrics(run / "longer", "ppo", last)
    lines = (run / "longer" / METRICS_FILE).read_text().splitlines(keepends=True)
    shutil.rmtree(run / "longer")
    with (run / METRICS_FILE).open("a") as file:
        file.writelines(lines[first - 1 :])


def many_runs(root: Path, count: int) -> Path:
    """The same finished run under `count` names."""
    first = finished_run(root / "run-0", "dpo", {"heldout_loss": 0.489}, num_steps=30)
    for index in range(1, count):
        shutil.copytree(first, root / f"run-{index}")
    return root
