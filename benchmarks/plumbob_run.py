"""Plumbob as a user runs it: `plumbob run` as a process of its own, timed by what its run folder says."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from benchmarks.workload import KL_COEFFICIENT, LEARNING_RATE, LORA_ALPHA, LORA_RANK, PREFERENCE_BETA, Workload

RUN_TIMEOUT_S = 1500.0
NUM_CPUS = os.cpu_count() or 1
HELD_OUT = "evaluate"
"""The phase in which held-out records are measured, which nobody compares."""
ESTIMATORS: Mapping[str, Mapping[str, Any]] = {
    "rloo": {"estimator": {"kind": "rloo"}, "kl": {"coefficient": KL_COEFFICIENT["rloo"]}},
    "grpo": {
        "estimator": {"kind": "grpo"},
        "loss_mean": "response",
        "kl": {"place": "loss", "estimate": "k3", "coefficient": KL_COEFFICIENT["grpo"]},
    },
    "ppo": {"estimator": {"kind": "gae"}, "kl": {"coefficient": KL_COEFFICIENT["ppo"]}},
}


class SideError(RuntimeError):
    """A side could not do a row's work; the message is the last that it said."""


@dataclass(frozen=True)
class PlumbobRun:
    """What a finished run's `metrics.jsonl` says.

    Attributes:
        steps: seconds from the end of a step to that of the next, so without the first; held-out measurement left out.
        phases: of every step, phase -> seconds.
        metrics: of every step.
        first_step_s: from the command to the end of the first step.
    """

    steps: Sequence[float]
    phases: Sequence[Mapping[str, float]]
    metrics: Sequence[Mapping[str, float]]
    first_step_s: float

    @property
    def whole_s(self) -> float:
        """All steps together, the first by its phases."""
        first = sum(seconds for phase, seconds in self.phases[0].items() if phase != HELD_OUT)
        return first + sum(self.steps)

    @property
    def outside_phases_s(self) -> float:
        """Of a step that which no phase took, the median: each step's own, as steps differ by more than that."""
        return median(step - sum(phases.values()) for step, phases in zip(self.steps, self.phases[1:], strict=True))

    def phase_s(self, name: str) -> float:
        """The median over the steps after the first."""
        return median(phases.get(name, 0.0) for phases in self.phases[1:])


def settings_of(work: Workload) -> dict[str, Any]:
    """The run's settings: what the work asks for, the machine's threads, and Plumbob's own defaults."""
    is_bfloat16 = work.precision == "bfloat16"
    learner = {"num_threads": NUM_CPUS, "micro_batch_size": work.micro_batch_size, "autocast": is_bfloat16}
    tuning = {"rank": LORA_RANK, "alpha": LORA_ALPHA}
    epochs = {"num_epochs": 1, "batch_size": work.batch_size, "learning_rate": LEARNING_RATE}
    data = {"heldout_fraction": 0.0, "overlap": "drop"}
    lengths = {"max_prompt_tokens": work.max_tokens, "max_response_tokens": work.max_tokens}
    common: dict[str, Any] = {"learner": learner, "storage": {"path": "."}, "name": "run"}
    policy = {"model": work.policy, "tuning": tuning}
    match work.method:
        case "dpo":
            own = {"policy": policy, "data": {"pairs": work.data} | data | lengths}
            return common | own | {"kind": "dpo", "dpo": epochs | {"loss": {"kind": "dpo", "beta": PREFERENCE_BETA}}}
        case "sft":
            own = {"policy": policy, "data": {"demonstrations": work.data} | data | lengths}
            return common | own | {"kind": "sft", "sft": epochs}
        case "reward":
            encoder = {"model": work.policy, "max_tokens": work.max_tokens}
            own = {"kind": "reward", "reward": encoder, "data": {"pairs": work.data} | data}
            return common | own | {"reward_training": epochs | {"dropout": False}}  # TRL's default.
        case "rloo" | "grpo" | "ppo":
            return common | {
                "kind": "online",
                "policy": policy | {"dtype": work.precision},
                "reward": {"model": work.reward_model, "normalize": False, "num_threads": NUM_CPUS},
                "data": {"prompts": work.data, "max_prompt_tokens": work.max_tokens} | data,
                "rollout": {
                    "engine": {"kind": "vllm", "kv_cache_gib": 1.0},
                    "max_tokens": work.max_new_tokens,
                    "chunk_size": work.batch_size,
                    "num_threads": NUM_CPUS,
                },
                "online": {
                    "num_steps": work.num_steps,
                    "prompts_per_step": work.prompts_per_step,
                    "samples_per_prompt": work.samples_per_prompt,
                    "minibatch_size": work.batch_size,
                    "learning_rate": LEARNING_RATE,
                    **ESTIMATORS[work.method],
                },
            }


def run_plumbob(work: Workload, folder: Path, changes: Mapping[str, str] = {}) -> PlumbobRun:
    """Run the work in `folder`, which is emptied first.

    Args:
        changes: settings on the command line, over those of the work.

    Raises:
        SideError: with the last line of what the run said.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(settings_of(work)), encoding="utf-8")
    command = [str(Path(sys.executable).with_name("plumbob")), "run", "run.yaml"]
    began = time.time()
    run_process([*command, *(f"{key}={value}" for key, value in changes.items())], folder)
    lines = (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return read_run([json.loads(line) for line in lines], began)


def read_run(lines: Sequence[Mapping[str, Any]], began: float) -> PlumbobRun:
    """From the lines of a `metrics.jsonl`, whose times are seconds since the epoch as `began` is."""
    phases = [dict(line["seconds"]) for line in lines]
    steps = [
        after["time"] - before["time"] - seconds.get(HELD_OUT, 0.0)
        for (before, after), seconds in zip(pairwise(lines), phases[1:], strict=True)
    ]
    return PlumbobRun(steps, phases, [line["metrics"] for line in lines], lines[0]["time"] - began)


def run_process(command: Sequence[str], folder: Path) -> None:
    """Run a side's process in `folder`, what it prints kept there. SideError with its last line where it fails."""
    log = folder / "printed.txt"
    with log.open("w", encoding="utf-8") as printed:
        try:
            done = subprocess.run(command, cwd=folder, stdout=printed, stderr=printed, timeout=RUN_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise SideError(f"not done after {RUN_TIMEOUT_S:.0f} s; see {log}") from error
    if done.returncode:
        lines = (line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines())
        last = next((line for line in reversed([*lines]) if line), "it printed nothing")
        raise SideError(f"status {done.returncode}: {last}"[:300])
