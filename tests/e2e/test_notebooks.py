"""The notebooks of examples/ run from their first cell to their last, and hold no output of somebody's machine."""

import time
from pathlib import Path

import pytest

from tests.support.notebooks import cells_of, run_notebook
from tests.support.source_tree import ROOT

NOTEBOOKS = sorted((ROOT / "examples/notebooks").glob("*.ipynb"))
TIMEOUT_S = 600.0


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_to_its_end(notebook: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    done = run_notebook(notebook, tmp_path, TIMEOUT_S)
    assert done.returncode == 0, done.stderr[-4000:]
    print(f"{notebook.name}: {time.monotonic() - began:.0f} s")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_outputs(notebook: Path) -> None:
    code = [cell for cell in cells_of(notebook) if cell["cell_type"] == "code"]
    assert len(code) > 3 and all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
