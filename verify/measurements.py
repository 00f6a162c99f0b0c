"""Runs the rows over several instances at once, and prints what came out as a table."""

import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plumbob.verify.rows.all_rows import ALL_ROWS, mistakes
from plumbob.verify.rows.bug_shift import SEEN
from plumbob.verify.rows.online_rows import FitRow
from plumbob.verify.rows.whole_system import WholeRow
from plumbob.verify.worker_process import prepare_worker
from plumbob.verify.world.problem import Measurement

NUM_SEEDS = 3


@dataclass(frozen=True)
class Result:
    """One row on one instance.

    Attributes:
        place: of the row in the table.
        mistakes: what likely mistakes of the trainer would move the target by, in what the first check measures; None
            where that is not solved for.
    """

    place: int
    row: str
    setting: str
    seed: int
    checks: tuple[Measurement, ...]
    mistakes: Mapping[str, float | None]
    seconds: float

    @property
    def holds(self) -> bool:
        return all(check.holds for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        checks = [check._asdict() | {"holds": check.holds} for check in self.checks]
        return asdict(self) | {"checks": checks, "holds": self.holds, "mistakes_in": self.checks[0].quantity}


def chosen(words: Sequence[str]) -> list[int]:
    """Places of the rows that have one of the words in their name or setting; all of them without a word."""
    texts = [f"{row.name} {row.setting}".lower() for row in ALL_ROWS]
    return [place for place, text in enumerate(texts) if not words or any(word.lower() in text for word in words)]


def measured(places: Sequence[int], num_seeds: int, num_workers: int) -> Iterator[Result]:
    """Every row on every instance, as they end; each in one of `num_workers` processes of one thread.

    Whether the model can be the target comes first. The row through the whole pipeline, which starts processes of its
    own, is measured once, beside the others.
    """
    whole = [place for place in places if isinstance(ALL_ROWS[place], WholeRow)]
    tasks = [(place, seed) for place in reversed(places) if place not in whole for seed in range(num_seeds)]
    tasks.sort(key=lambda task: not isinstance(ALL_ROWS[task[0]], FitRow))  # Without them no other means anything.
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, context, prepare_worker) as beside,
        ProcessPoolExecutor(num_workers, context, prepare_worker) as pool,
    ):
        futures = [beside.submit(measure, place, 0) for place in whole] + [
            pool.submit(measure, *task) for task in tasks
        ]
        for ended in as_completed(futures):
            yield ended.result()


def measure(place: int, seed: int) -> Result:
    row = ALL_ROWS[place]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="plumbob-verify-") as folder:
        checks = row.measure(seed, Path(folder))
        moved = mistakes(row, seed, Path(folder) / "mistakes")
    return Result(place, row.name, row.setting, seed, checks, moved, time.monotonic() - began)


def line(result: Result) -> list[str]:
    """The cells of a result: what it is, and each check with its bound."""
    checks = ", ".join(f"{c.quantity} {c.value:.4f} (at most {c.bound:g})" for c in result.checks)
    verdict = "ok" if result.holds else "FAILED"
    return [result.row, result.setting, f"seed {result.seed}", checks, f"{result.seconds:.0f} s", verdict]


def mistake_lines(results: Sequence[Result]) -> list[str]:
    """One line for each row that lists mistakes: what they move its target by, on the instance where that is least."""
    rows = {result.place: result for result in results if result.mistakes}
    if not rows:
        return []
    lines = [
        "",
        "What a likely mistake of the trainer would move the target by, in what is named (TV: total variation), least",
        "over the instances. The gradient tests (tests/optimum/) plant every one, and so catch what moves it by less",
        f"than {SEEN:.2f} or is not solved for (-).",
    ]
    for place, row in sorted(rows.items()):
        moves = (f"{name} {least(results, place, name)}" for name in row.mistakes)
        lines.append(f"{row.row}, {row.setting} ({row.checks[0].quantity}): {', '.join(moves)}")
    return lines


def least(results: Sequence[Result], place: int, mistake: str) -> str:
    """The least over a row's instances of what the mistake moves its target by."""
    found = [result.mistakes[mistake] for result in results if result.place == place]
    moves = [move for move in found if move is not None]
    return f"{min(moves):.3f}" if moves else "-"
