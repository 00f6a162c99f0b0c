"""The example of docs/python.md, run as it stands; and its table: each command, and functions that there are."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

from plumbob.console.cli import COMMANDS
from tests.support.source_tree import ROOT

PAGE = (ROOT / "docs/python.md").read_text(encoding="utf-8")
SINK = "        \"sinks=[{kind: opentelemetry, endpoint: 'http://127.0.0.1:9'}]\",\n"
"""A collector that is not there: a run says so once, and ends as well as without."""


def test_the_example_runs_and_a_sink_that_fails_changes_nothing(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text(example.replace('        *("name=cars"', f'{SINK}        *("name=cars"'))
    done = subprocess.run(
        [sys.executable, script.name],
        cwd=tmp_path,
        env=os.environ | {"OTEL_EXPORTER_OTLP_TIMEOUT": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    steps = re.findall(r"^pretrain (\d+)/(\d+): loss [\d.]+$", done.stdout, re.MULTILINE)
    assert len(steps) > 3 and steps[-1][0] == steps[-1][1]
    assert "checkpoints/step-" in done.stdout and "runs/cars: well\n" in done.stdout
    log = (tmp_path / "runs/cars/driver.log").read_text()
    assert log.count("sinks: opentelemetry failed, and is tried again at the next step") == 1
    assert (tmp_path / "runs/cars/trackers/opentelemetry.json").exists()


def test_functions_behind_commands_are_there() -> None:
    rows = re.findall(r"^\| `([\w -]+)` \| (.*) \|$", PAGE, re.MULTILINE)
    assert [command for command, _ in rows] == [command.NAME for command in COMMANDS]
    for _, functions in rows:
        for name in re.findall(r"`(plumbob\.[\w.]+)`", functions):
            module, _, function = name.rpartition(".")
            assert callable(getattr(importlib.import_module(module), function)), name
