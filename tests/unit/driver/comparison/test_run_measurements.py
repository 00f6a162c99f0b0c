"""What the summary of a run tells of the noise of its metrics."""

import json
from pathlib import Path
from typing import Any

import pytest

from plumbob.driver.comparison.run_measurements import measurements


def write_run(folder: Path, stage: dict[str, Any], evaluation: dict[str, Any] | None = None) -> Path:
    """A finished evaluation, as far as its metrics are read."""
    folder.mkdir()
    config = {"kind": "eval", "evaluation": evaluation or {}}
    (folder / "resolved.json").write_text(json.dumps({"config": config}))
    (folder / "summary.json").write_text(json.dumps({"stages": {"eval": stage}}))
    return folder


def test_the_error_behind_an_interval_is_told_of_what_is_left_of_it(tmp_path: Path) -> None:
    """Errors of 0.1 and of 0.2 are 0.1959964 and 0.3919928 to either side, before a chance is cut to [0, 1]."""
    stage = {
        **{"num_prompts": 25, "num_pairs": 50},
        **{"kl": 2.0, "kl_ci95": [1.8040036, 2.1959964]},
        **{"pass_at_1": 0.9, "pass_at_1_ci95": [0.7040036, 1.0]},
        **{"pass_at_2": 0.3, "pass_at_2_ci95": [0.0, 0.6919928]},
        **{"pass_at_4": 0.5, "pass_at_4_ci95": [0.0, 1.0]},
        **{"win_rate": 1.0, "win_rate_ci95": [1.0, 1.0]},
        **{"reward_gain": 0.3, "reward_gain_ci95": [0.3 - 1e-17, 0.3 + 1e-16]},
        **{"accuracy": 0.5, "accuracy_ci95": [0.3040036, 0.6959964]},
    }
    found = measurements(write_run(tmp_path / "run", stage))
    errors = {name: one.error for name, one in found.items() if one.error is not None}
    assert errors == pytest.approx({"kl": 0.1, "pass_at_1": 0.1, "pass_at_2": 0.2, "accuracy": 0.1})
    assert {"pass_at_4", "win_rate", "reward_gain"} < found.keys()
    assert (found["kl"].num_prompts, found["accuracy"].num_prompts) == (25, 50)
