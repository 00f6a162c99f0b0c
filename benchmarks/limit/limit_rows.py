"""Rows against the limit instead of a peer: a step's bare parts, the larger of two, memory, publishing, the start."""

import json
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.limit.learner_memory import LearnerMemory
from benchmarks.material import Material
from benchmarks.measuring import BothSides
from benchmarks.peer_run import ROOT
from benchmarks.plumbob_run import SideError, run_plumbob, run_process
from benchmarks.row_medians import Row, compared, not_measured
from benchmarks.rows import PeerComparison
from benchmarks.workload import Workload
from plumbob.core.errors import UserError

STEP, ASYNC, GROWTH = "limit-ppo-26m-step", "limit-ppo-3m-async", "limit-rloo-3m-growth"
SFT, REWARD = "limit-sft-26m-products", "limit-reward-minilm-products"
LIMITS = (STEP, ASYNC, GROWTH, SFT, REWARD)
"""Names of the limits that runs of their own are made for."""

PPO_STEP = PeerComparison("ppo", "26m", 4, 32, ending="full", prompt_tokens=32, samples_per_prompt=4)
PPO_ASYNC = PeerComparison("ppo", "3m", 8, 64, ending="full", prompt_tokens=32, samples_per_prompt=4)
LONG_RUN = PeerComparison(
    "rloo", "3m", 41, 32, ending="full", prompt_tokens=32, samples_per_prompt=4, max_new_tokens=16
)
OFFLINE = {SFT: PeerComparison("sft", "26m", 6, 32), REWARD: PeerComparison("reward", "minilm", 4, 32)}
"""The same work as that of the rows against a peer."""
COMPARED_STEPS = 10
"""Of the long run's beginning and end."""
LEARNS = ("logprobs", "learn", "publish", "commit")
SAMPLES = ("sample", "score")
FIRST_STEP_S = 30.0
LARGE = ("26m", "135m", "1b")
"""Sizes at which publishing, and the driver, are held to their shares of a step."""


def limit_rows(name: str, material: Material, folder: Path, repeats: int) -> list[Row]:
    """The rows of one of `LIMITS`; what kept them from being measured is in their place."""
    offline = {each: partial(product_rows, each) for each in OFFLINE}
    rows_of = ({STEP: step_rows, ASYNC: async_rows, GROWTH: growth_rows} | offline)[name]
    try:
        return list(rows_of(material, folder, repeats))
    except (SideError, UserError, ValueError, OSError, LookupError) as error:
        return [not_measured(name, "s", 1.1, False, f"{type(error).__name__}: {error}")]


def step_rows(material: Material, folder: Path, repeats: int) -> Iterator[Row]:
    """A PPO step against the sum of its bare parts, and the learner's memory against what it must hold."""
    work = PPO_STEP.workload(material)
    steps, floors, peaks, notes = [], [], [], []
    for _ in range(repeats):
        with LearnerMemory() as memory:
            run = run_plumbob(work, folder / "plumbob")
        if not memory.peak:
            raise SideError("no learner process was seen")
        parts = bare_parts(work, folder)
        steps.append(median(run.steps))
        floors.append(parts)
        peaks.append(memory.peak - parts["loaded"])
        notes = [f"{name} {run.phase_s(name):.2f}" for name in (*SAMPLES, *LEARNS)]
    sums = [sum(parts[name] for name in ("sample", "score", "learn")) for parts in floors]
    alone = ", ".join(f"{name} {floors[-1][name]:.2f}" for name in ("sample", "score", "learn"))
    note = f"step: {', '.join(notes)}; alone: {alone}"
    yield compared(f"{STEP} / its bare parts", "s", steps, sums, target=1.1, higher_is_better=False, note=note)
    mib = [peak / 2**20 for peak in peaks]
    must = [parts["memory"] / 2**20 for parts in floors]
    four = [(parts["memory"] + 3 * parts["base"]) / 2**20 for parts in floors]
    name = "limit-ppo-26m-learner-memory"
    note = "growth of the process over what its imports take; base, two adapters' state, one micro-batch"
    yield compared(f"{name} / bare", "MiB", mib, must, target=1.3, higher_is_better=False, note=note)
    note = "the same with policy, reference, critic and reward model as whole models"
    yield compared(f"{name} / four copies", "MiB", mib, four, target=None, higher_is_better=False, note=note)


def async_rows(material: Material, folder: Path, repeats: int) -> Iterator[Row]:
    """An asynchronous step against the larger of sampling and learning, which each have a core of their own."""
    work = PPO_ASYNC.workload(material)
    apart = {f"{role}.num_threads": "1" for role in ("rollout", "learner", "reward")}
    steps, larger = [], []
    for _ in range(repeats):
        by_turns = run_plumbob(work, folder / "by-turns", apart)
        beside = run_plumbob(work, folder / "beside", apart | {"online.max_staleness": "1"})
        halves = [sum(map(by_turns.phase_s, names)) for names in (SAMPLES, LEARNS)]
        steps.append(median(beside.steps[1:]))
        larger.append(max(halves))
    note = f"by turns: sampling {halves[0]:.2f}, learning {halves[1]:.2f}; a thread each, {os.cpu_count()} cores"
    yield compared(f"{ASYNC} / the larger part", "s", steps, larger, target=1.1, higher_is_better=False, note=note)


def growth_rows(material: Material, folder: Path, repeats: int) -> Iterator[Row]:
    """The last steps of a long run against its first ones: what a step costs does not grow with their number."""
    work, first, last = LONG_RUN.workload(material), [], []
    for _ in range(repeats):
        steps = run_plumbob(work, folder / "plumbob").steps
        first.append(median(steps[:COMPARED_STEPS]))
        last.append(median(steps[-COMPARED_STEPS:]))
    note = f"steps {work.num_steps - COMPARED_STEPS + 1} to {work.num_steps} against 2 to {COMPARED_STEPS + 1}"
    yield compared(f"{GROWTH} / its first steps", "s", last, first, target=1.1, higher_is_better=False, note=note)


def product_rows(name: str, material: Material, folder: Path, repeats: int) -> Iterator[Row]:
    """A step that does not sample against the matrix products alone that it cannot do without."""
    work, steps, floors, notes = OFFLINE[name].workload(material), [], [], []
    for _ in range(repeats):
        run = run_plumbob(work, folder / "plumbob")
        parts = parts_alone("benchmarks.limit.matrix_products", work, folder)
        steps.append(run.whole_s / len(run.phases))
        floors.append(parts["products"])
        notes = [f"learn {run.phase_s('learn'):.2f}; {parts['tokens']:.0f} tokens a step; no target"]
    yield compared(f"{name} / products alone", "s", steps, floors, target=None, higher_is_better=False, note=notes[-1])


def bare_parts(work: Workload, folder: Path) -> dict[str, float]:
    """Part -> seconds; memory in bytes."""
    parts: dict[str, float] = {}
    for which in ("sample", "learn", "score"):
        parts |= parts_alone("benchmarks.limit.bare_parts", work, folder, which)
    return parts


def parts_alone(module: str, work: Workload, folder: Path, *which: str) -> dict[str, float]:
    """What a module of this folder measures of the work, in a process of its own."""
    given, found = folder / "workload.json", folder / "parts.json"
    work.write(given)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = ["env", f"PYTHONPATH={path}", sys.executable, "-m", module, *which]
    run_process([*command, str(given), str(found)], folder)
    parts: dict[str, float] = json.loads(found.read_text(encoding="utf-8"))
    return parts


def shares(comparison: PeerComparison, measured: BothSides) -> Iterator[Row]:
    """Of a comparison's own runs of Plumbob: publishing, the driver's own share, and the first finished step."""
    runs, name = measured.plumbob, comparison.name
    steps = [measured.step_seconds(run) for run in runs]
    publish = [run.phase_s("publish") for run in runs]
    target = 0.01 if comparison.size in LARGE else None
    yield compared(f"{name} / publish of a step", "s", publish, steps, target=target, higher_is_better=False)
    own = [run.outside_phases_s for run in runs]
    target = 0.02 if comparison.size in LARGE else None
    yield compared(f"{name} / driver of a step", "s", own, steps, target=target, higher_is_better=False)
    first = [run.first_step_s for run in runs]
    limit = [FIRST_STEP_S] * len(first)
    yield compared(f"{name} / first step by", "s", first, limit, target=1.0, higher_is_better=False)
