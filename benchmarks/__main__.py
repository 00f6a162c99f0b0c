"""The benchmark's command: measures rows, prints one table and writes `results.json`."""

import argparse
import fnmatch
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from transformers.utils import logging

from benchmarks.limit.limit_rows import LIMITS, limit_rows, shares
from benchmarks.material import Material
from benchmarks.measuring import BothSides, comparison_rows, try_measure
from benchmarks.results_table import RESULTS, minutes_today, text_table, write_results
from benchmarks.row_medians import Row
from benchmarks.rows import DEFAULT, GPU, PeerComparison, every_comparison
from benchmarks.workload import ONLINE


def chosen(patterns: Sequence[str], on_gpu: bool) -> list[PeerComparison | str]:
    """The comparisons, and the names of the limits, that match; without a pattern those of a plain run."""
    if not patterns:
        return list(GPU) if on_gpu else [*DEFAULT, *LIMITS]
    known: dict[str, PeerComparison | str] = {**every_comparison(), **{name: name for name in LIMITS}}
    names = [name for name in known if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    if not names:
        sys.exit(f"no row is called {' or '.join(patterns)}; the rows are:\n" + "\n".join(known))
    return [known[name] for name in names]


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("rows", nargs="*", help="names or patterns of rows, such as 'dpo-*'; else a plain run's")
    parser.add_argument("--pairs", default=os.environ.get("PAIRS"), help="file of preference pairs, for their lengths")
    parser.add_argument("--repeats", type=int, default=2, help="how often each side is run, in turn")
    parser.add_argument("--gpu", action="store_true", help="the rows for a machine with a GPU")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench"), help="for models, data and runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file of results")
    asked = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    began = time.monotonic()
    folder = asked.folder.absolute()
    shutil.rmtree(folder / "material", ignore_errors=True)
    material = Material(folder / "material", asked.pairs)
    print(f"pairs and demonstrations: {material.source}", flush=True)
    earlier = minutes_today(asked.out, material.source)
    rows: list[Row] = []
    for each in chosen(asked.rows, asked.gpu):
        name = each if isinstance(each, str) else each.name
        (folder / name).mkdir(parents=True, exist_ok=True)
        new = measured_rows(each, material, folder / name, asked.repeats)
        rows += new
        minutes = (time.monotonic() - began) / 60
        # After every row: a benchmark that is stopped has what it measured.
        write_results(asked.out, rows, material.source, earlier + minutes)
        print(f"{minutes:5.1f} min  {name}: {', '.join(_result(row) for row in new)}", flush=True)
    print(text_table(rows))


def measured_rows(each: PeerComparison | str, material: Material, folder: Path, repeats: int) -> list[Row]:
    """The rows of a comparison, or of the limit of that name."""
    if isinstance(each, str):
        return limit_rows(each, material, folder, repeats)
    measured = try_measure(each, material, folder, repeats)
    rows = list(comparison_rows(each, measured))
    if each.method in ONLINE and isinstance(measured, BothSides):
        rows += shares(each, measured)
    return rows


def _result(row: Row) -> str:
    return row.reason if row.ratio is None else f"{row.ratio:.2f} of {row.name.rpartition('/')[2].strip()}"


if __name__ == "__main__":
    main()
