"""What the summary of a run tells of the noise of its metrics."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plumbob.configs.runs import RUN_KINDS
from plumbob.configs.settings.algorithms import ALGORITHMS
from plumbob.configs.settings.training import PolicyEvaluationSettings
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


@pytest.mark.parametrize("stage", sorted(RUN_KINDS.keys() - {"online"}))
def test_only_online_stages_are_compared_under_one_name(stage: str, tmp_path: Path) -> None:
    """A stage of each other kind of run keeps its own, a kind that is added tomorrow too."""
    folder = write_run(tmp_path / "run", {})
    online = {algorithm: {"kl": 1.0} for algorithm in ALGORITHMS}
    (folder / "summary.json").write_text(json.dumps({"stages": {stage: {"heldout_loss": 0.5}} | online}))
    assert measurements(folder).keys() == {f"{stage} heldout_loss", "online kl"}


def test_a_table_that_another_evaluation_wrote_is_not_the_run_s(tmp_path: Path) -> None:
    """Two evaluations with one `evaluation.responses_file`: the second's scores, 3 and 5, lie there in the end."""
    table, folders = tmp_path / "responses.parquet", []
    for name, scores in (("first", [1.0, 2.0]), ("second", [3.0, 5.0])):
        pq.write_table(pa.table({"policy": ["policy"] * 2, "prompt": ["Q", "Why"], "score": scores}), table)
        stage = {"reward": sum(scores) / 2, "responses_digest": hashlib.sha256(table.read_bytes()).hexdigest()}
        folders.append(write_run(tmp_path / name, stage, {"responses_file": str(table)}))
    first, second = (measurements(folder)["reward"] for folder in folders)
    assert (first.value, first.by_prompt) == (1.5, {})
    assert (second.value, second.by_prompt) == (4.0, {"Q": 3.0, "Why": 5.0})


def test_a_table_is_found_from_any_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for given, expected in (("r.parquet", "r.parquet"), ("~/r.parquet", "home/r.parquet")):
        assert PolicyEvaluationSettings(responses_file=given).responses_file == str(tmp_path / expected)
