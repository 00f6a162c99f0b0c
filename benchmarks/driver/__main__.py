"""The command: measures each number of responses and of workers in a process of its own; a table, and JSON."""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

RESPONSES = (256, 1024, 4096, 8192)
WORKERS = (1, 16, 64, 256)
COLUMNS = {
    "num_responses": "responses",
    "num_workers": "workers",
    "cpu_s": "driver CPU s",
    "driver_mb": "MB through it",
    "learner_mb": "MB to learners",
    "memory_mib": "peak MiB",
    "journal_mb": "journal MB",
    "wall_s": "wall s",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-driver", description=__doc__)
    parser.add_argument("--responses", type=int, nargs="+", default=RESPONSES, help="of a step, multiples of 256")
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS, help="rollout workers, scorers and learners")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-driver"), help="for what the steps write")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-driver.json"), help="the file of results")
    parser.add_argument("--one", action="store_true", help="measure the one case given in this process; print JSON")
    asked = parser.parse_args()
    if asked.one:
        from benchmarks.driver.measured_steps import measure

        print(json.dumps(asdict(measure(asked.responses[0], asked.workers[0], asked.folder))))
        return
    rows: list[dict[str, float]] = []
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    print(table([]), flush=True)
    for responses in asked.responses:
        for workers in asked.workers:
            rows.append(measured_apart(responses, workers, asked.folder))
            print(line(rows[-1]), flush=True)
            asked.out.write_text(json.dumps(rows, indent=2) + "\n")


def measured_apart(responses: int, workers: int, folder: Path) -> dict[str, float]:
    """One case in a process of its own, so that none has another's memory."""
    case = ["--responses", str(responses), "--workers", str(workers), "--folder", str(folder)]
    command = [sys.executable, "-m", "benchmarks.driver", "--one", *case]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=1800)
    row: dict[str, float] = json.loads(found.stdout.splitlines()[-1])
    return row


def table(rows: list[dict[str, float]]) -> str:
    """As Markdown."""
    return "\n".join([f"| {' | '.join(COLUMNS.values())} |", "|---" * len(COLUMNS) + "|", *map(line, rows)])


def line(row: dict[str, float]) -> str:
    cells = [row[name] for name in COLUMNS]
    return f"| {' | '.join(f'{cell:,}' if isinstance(cell, int) else f'{cell:,.2f}' for cell in cells)} |"


if __name__ == "__main__":
    main()
