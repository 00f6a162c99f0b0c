"""Runs the rows over several instances at once, and prints what came out as a table."""

import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plumbob.verify.rows.all_rows import ALL_ROWS, bug_shifts
from plumbob.verify.rows.bug_shift import SEEN
from plumbob.verify.rows.online_rows import FitRow
from plumbob.verify.rows.whole_system import WholeSystemRow
from plumbob.verify.worker_process import prepare_worker
from plumbob.verify.world.problem import Measurement


@dataclass(frozen=True)
class Result:
    """One row on one instance.

    Attributes:
        index: of the row in the table.
        bug_shifts: what planted bugs of the trainer would move the target by, in what the first check measures; None
            where that is not solved for.
    """

    index: int
    row: str
    setting: str
    seed: int
    checks: tuple[Measurement, ...]
    bug_shifts: Mapping[str, float | None]
    seconds: float

    @property
    def holds(self) -> bool:
        return all(check.holds for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        checks = [check._asdict() | {"holds": check.holds} for check in self.checks]
        return asdict(self) | {"checks": checks, "holds": self.holds, "bug_shifts_in": self.checks[0].quantity}


def matching_rows(words: Sequence[str]) -> list[int]:
    """Indices of the rows that have one of the words in their name or setting; all of them without a word."""
    texts = [f"{row.name} {row.setting}".lower() for row in ALL_ROWS]
    return [index for index, text in enumerate(texts) if not words or any(word.lower() in text for word in words)]


def measured(indices: Sequence[int], num_seeds: int, num_workers: int) -> Iterator[Result]:
    """Every row on every instance, as they end; each in one of `num_workers` processes of one thread.

    Whether the model can be the target comes first. The row through the whole pipeline, which starts processes of its
    own, is measured once, beside the others.
    """
    whole = [index for index in indices if isinstance(ALL_ROWS[index], WholeSystemRow)]
    tasks = [(index, seed) for index in reversed(indices) if index not in whole for seed in range(num_seeds)]
    tasks.sort(key=lambda task: not isinstance(ALL_ROWS[task[0]], FitRow))  # Without them no other means anything.
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, context, prepare_worker) as alone,
        ProcessPoolExecutor(num_workers, context, prepare_worker) as pool,
    ):
        futures = [alone.submit(measure, index, 0) for index in whole] + [pool.submit(measure, *task) for task in tasks]
        for ended in as_completed(futures):
            yield ended.result()


def measure(index: int, seed: int) -> Result:
    row = ALL_ROWS[index]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="plumbob-verify-") as folder:
        checks = row.measure(seed, Path(folder))
        moved = bug_shifts(row, seed, Path(folder) / "bugs")
    return Result(index, row.name, row.setting, seed, checks, moved, time.monotonic() - began)


def line(result: Result) -> list[str]:
    """The cells of a result: what it is, and each check with its bound."""
    checks = ", ".join(f"{c.quantity} {c.value:.4f} (at most {c.bound:g})" for c in result.checks)
    verdict = "ok" if result.holds else "FAILED"
    return [result.row, result.setting, f"seed {result.seed}", checks, f"{result.seconds:.0f} s", verdict]


def bug_lines(results: Sequence[Result]) -> list[str]:
    """One line for each row that lists bugs: what they move its target by, on the instance where that is least."""
    rows = {result.index: result for result in results if result.bug_shifts}
    if not rows:
        return []
    lines = [
        "",
        "What a planted bug of the trainer would move the target by, in what is named (TV: total variation), least",
        "over the instances. The gradient tests (tests/optimum/) plant every one, and so catch what moves it by less",
        f"than {SEEN:.2f} or is not solved for (-).",
    ]
    for index, row in sorted(rows.items()):
        shifts_of_bugs = (f"{name} {least(results, index, name)}" for name in row.bug_shifts)
        lines.append(f"{row.row}, {row.setting} ({row.checks[0].quantity}): {', '.join(shifts_of_bugs)}")
    return lines


def least(results: Sequence[Result], index: int, bug: str) -> str:
    """The least over a row's instances of what the bug moves its target by."""
    found = [result.bug_shifts[bug] for result in results if result.index == index]
    shifts_of_bugs = [move for move in found if move is not None]
    return f"{min(shifts_of_bugs):.3f}" if shifts_of_bugs else "-"
