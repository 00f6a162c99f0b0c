"""How often the walk of a run's settings, from the command line to what is prepared of it, climbs back."""

import json
from pathlib import Path

import pytest

from plumbob.configs.load_run import load_run
from plumbob.driver.prepared_run import prepare_run
from plumbob.reward.reward_models.calibration import Calibration, save_calibration
from tests.support.tiny_policy import write_policy
from tests.support.tiny_scorer import write_scorer
from tests.support.walk import climbs, walked

NUM_CALLS = 400
MOST_CLIMBS = {"sft": 8, "ppo": 30}
"""Of those calls. Most of PPO's are of settings, which say what they name: a model to load, a part of the reward."""


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Preset -> its settings: a tiny policy and reward model, and 40 rows that are demonstrations and prompts."""
    folder = tmp_path_factory.mktemp("walk")
    rows = [{"prompt": f"What is {number}?", "completion": "A number."} for number in range(40)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    policy, scorer = write_policy(folder / "policy"), write_scorer(folder / "scorer")
    save_calibration(Calibration(mean=0.0, std=1.0, num_samples=9, under="x"), scorer)
    return {
        "sft": [f"policy.model={policy}", f"data.demonstrations={folder / 'rows.jsonl'}"],
        "ppo": [
            *(f"policy.model={policy}", f"reward.model={scorer}", f"data.prompts={folder / 'rows.jsonl'}"),
            *("reward.max_tokens=32", "rollout.max_tokens=8"),
        ],
    }


@pytest.mark.parametrize("preset", ["sft", "ppo"])
def test_what_prepares_a_run_seldom_climbs_back(preset: str, given: dict[str, list[str]]) -> None:
    """From the command line on (`make walk` prints the climbs), and from the run on."""
    walks = {"config": walked(lambda: prepare_run(load_run(preset, given[preset])), NUM_CALLS)}
    run = load_run(preset, given[preset])
    walks["prepare"] = walked(lambda: prepare_run(run), NUM_CALLS)
    found = {name: climbs(walk) for name, walk in walks.items()}
    for name, own in found.items():
        print(f"\n{preset}, {name}: {len(own)} climbs in {NUM_CALLS} calls: {', '.join(own)}")
    assert {name: own for name, own in found.items() if len(own) > MOST_CLIMBS[preset]} == {}


def test_climbs_are_calls_of_a_higher_folder_than_the_last() -> None:
    assert climbs(["driver", "configs", "models", "models", "driver"]) == ["configs > models", "models > driver"]


def test_a_walk_is_the_calls_of_our_functions(tmp_path: Path) -> None:
    """Of `load_run`: all are of configs, and no more than were asked for."""
    folders = walked(lambda: load_run("toy", [f"storage.path={tmp_path}"]), 50)
    assert folders == ["configs"] * 50
