"""How the peer's steps are timed, and the frame of its scripts: a workload in, seconds of each variant out."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import torch
from transformers import TrainerCallback

from benchmarks.workload import LEARNING_RATE, Workload

QUIET = {"report_to": "none", "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True}
"""Nothing is sent or saved; metrics of every step are kept, since they have the lengths."""

SIDES = ("chosen", "rejected")

Variants = Mapping[str, Mapping[str, Any]]
"""Name -> what differs from the library's defaults."""


class StepClock(TrainerCallback):
    """When training began and each optimizer step ended."""

    def __init__(self) -> None:
        self.began = 0.0
        self.ends: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())

    def seconds(self) -> dict[str, Any]:
        """`steps`: from the end of a step to that of the next, so without the first. `whole`: all steps together."""
        return {
            "steps": [after - before for before, after in pairwise(self.ends)],
            "whole": self.ends[-1] - self.began,
        }


def arguments(work: Workload, folder: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What every trainer of the library is given. `settings`: what a variant sets, by the library's names."""
    return {
        "output_dir": folder,
        "max_steps": work.num_steps,
        "learning_rate": LEARNING_RATE,
        "bf16": work.precision == "bfloat16",
        "use_cpu": not torch.cuda.is_available(),
        "gradient_accumulation_steps": work.batch_size // settings.get("per_device_train_batch_size", 8),
        **QUIET,
        **settings,
    }


def rows_of(work: Workload) -> datasets.Dataset:
    lines = Path(work.data).read_text(encoding="utf-8").splitlines()
    return datasets.Dataset.from_list([json.loads(line) for line in lines])


def with_lengths(rows: datasets.Dataset) -> datasets.Dataset:
    """Pairs with the column that the library groups by, which it does not make for pairs: the longer side's letters."""
    return rows.map(lambda row: {"length": max(len(str(row["prompt"]) + str(row[side])) for side in SIDES)})


def run_variants(variants: Callable[[Workload], Variants], train: Callable[..., dict[str, Any]]) -> None:
    """Train each variant in turn. argv: the workload's file, the file for the seconds, and variants to leave out.

    Args:
        variants: of the workload.
        train: (workload, rows, output folder, settings) -> `StepClock.seconds()`, and what else was measured.
    """
    given, results, *left_out = sys.argv[1:]
    work = Workload.read(Path(given))
    # What was computed for an earlier variant must not be found in a cache.
    datasets.disable_caching()
    found = {}
    for name, settings in variants(work).items():
        if name in left_out:
            continue
        with TemporaryDirectory() as folder:
            found[name] = train(work, rows_of(work), folder, dict(settings))
    Path(results).write_text(json.dumps(found, indent=1), encoding="utf-8")
