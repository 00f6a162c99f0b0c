"""Notebooks run as a reader runs them, cell after cell in one process; without Jupyter, of which they need nothing."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = """
import json, sys

for number, source in enumerate(json.load(open(sys.argv[1]))):
    try:
        exec(compile(source, f"cell {number}", "exec"), globals())
    except BaseException:
        print(f"in code cell {number}:\\n{source}\\n", file=sys.stderr)
        raise
"""


def cells_of(notebook: Path) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return content


def run_notebook(notebook: Path, folder: Path, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Its cells of code, in that working folder; the first that raises ends it, and is shown on stderr."""
    cells = folder / "cells.json"
    cells.write_text(
        json.dumps(["".join(cell["source"]) for cell in cells_of(notebook) if cell["cell_type"] == "code"])
    )
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(cells)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
