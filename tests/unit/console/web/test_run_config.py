"""The settings of a run with what is said of each."""

import json
from pathlib import Path

from plumbob.configs.load_run import load_run
from plumbob.configs.resolved_copy import write_resolved
from tests.support.served_runs import asked, served


def test_settings_have_defaults_and_meanings_of_the_variants_chosen(tmp_path: Path) -> None:
    run = load_run("toy", ["online.estimator.kind=rloo", "online.samples_per_prompt=4"])
    write_resolved(run, tmp_path / "toy")
    with served(tmp_path) as client:
        found = asked(client, "/api/runs/toy/config")
    assert found["flat"]["online.estimator.kind"] == "rloo" and found["flat"]["online.samples_per_prompt"] == 4
    assert found["defaults"]["online.samples_per_prompt"] == 1 and found["defaults"]["online.kl.place"] == "reward"
    assert found["meanings"]["online.num_steps"] == "Rounds of sampling, scoring and learning."
    assert found["resolved"]["config"]["kind"] == "pipeline" and not found["damaged"]
    assert {key for key in found["flat"] if key.startswith("online.")} <= set(found["defaults"]) | set(
        found["meanings"]
    )
    rows = [proof["row"] for proof in found["proofs"]]
    assert "RLOO: k1 in the reward, 40 responses" in rows and not any(row.startswith("PPO") for row in rows)


def test_old_names_are_shown_as_they_are_called_now(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    config = {"kind": "ppo", "ppo": {"loss_mean": "answer", "clip_range": 0.1}, "tags": [], "parts": [{"a": 1}]}
    (tmp_path / "run" / "resolved.json").write_text(json.dumps({"config": config}))
    with served(tmp_path) as client:
        flat = asked(client, "/api/runs/run/config")["flat"]
    assert flat == {
        **{
            "kind": "online",
            "online.loss_mean": "response",
            "online.policy_loss.clip_range": 0.1,
            "tags": [],
            "parts.0.a": 1,
        }
    }
