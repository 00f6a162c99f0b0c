"""A run that has ended before it began, for commands that only show one."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plumbob.configs.resolved_copy import write_resolved
from plumbob.trainers.metrics.step_record import Listener, StepRecord

PPO = ["ppo", "policy.model=sft", "reward.model=rm", "data.prompts=prompts.jsonl"]
SUMMARY = {"name": "ppo", "seconds_total": 2.0, "stages": {"ppo": {"reward": 0.5, "seconds": 2.0}}}


@dataclass(frozen=True)
class EndedRun:
    folder: Path
    summary: dict[str, Any]
    was_finished: bool = False


def finish(config: Any, listener: Listener) -> EndedRun:
    folder = Path(config.storage.path) / config.name
    write_resolved(config, folder)
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    listener.stage_began("ppo")
    listener.stepped(StepRecord("ppo", 1, 1, {"reward": 0.5}, {}))
    return EndedRun(folder, SUMMARY)


def error_in(out: str) -> dict[str, Any]:
    """What a script is told, which is one line."""
    (line,) = out.splitlines()
    error: dict[str, Any] = json.loads(line)
    return error
