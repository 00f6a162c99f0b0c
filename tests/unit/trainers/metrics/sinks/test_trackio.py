"""A run in Trackio's local store, read back by Trackio."""

import json
import subprocess
import sys
from pathlib import Path

from tests.support.source_tree import ROOT

PROGRAM = """
import json, sys
from pathlib import Path

from plumbob.configs.settings.metrics.sinks import TrackioSettings
from tests.support.tracked_runs import write_stopped_and_resumed

write_stopped_and_resumed(TrackioSettings(project="cars"), Path(sys.argv[1]))
from trackio.sqlite_storage import SQLiteStorage

runs = SQLiteStorage.get_runs("cars")
print(json.dumps([runs, [SQLiteStorage.get_logs("cars", name) for name in runs]]))
"""
"""In a process of its own: where Trackio keeps runs is asked once, when it is imported."""


def test_a_stopped_and_resumed_run_is_one_run_with_all_its_steps(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=ROOT,
        env={"PATH": "", "TRACKIO_DIR": str(tmp_path / "kept"), "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (name,), (logs,) = json.loads(done.stdout)  # Nothing else is printed there.
    assert name == json.loads((tmp_path / "trackers/trackio.json").read_text())["id"] and name.startswith("align-")
    found = [{key: value for key, value in row.items() if "/" in key or key == "step"} for row in logs]
    assert found == [
        {"sft/loss": 2.0, "sft/seconds/learn": 0.25, "step": 1},
        {"sft/loss": 1.5, "sft/seconds/learn": 0.25, "step": 2},
        {"ppo/kl": 0.25, "ppo/seconds/learn": 0.25, "step": 1},
        {"ppo/kl": 0.5, "ppo/seconds/learn": 0.25, "step": 2},
    ]
