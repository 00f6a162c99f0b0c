"""A server over run folders that stands for a whole module."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from plumbob.rollout.journal import JOURNAL_FOLDER, JournalRow, write_step
from plumbob.rollout.rollout_records import EpisodeRecord, EpisodeTurn
from tests.support.finished_run import finished_pipeline, finished_run
from tests.support.served_runs import served

STATUS = {
    **{"time": 1.0, "stage": "ppo", "step": 30, "num_steps": 30, "metrics": {"reward": 1.0}, "seconds": {"learn": 1.0}},
    **{"last_message": "", "rollout": None, "autoscale": None, "workers_lost": 0, "answers": None},
    "workers": {
        "rollout": [{"worker": f"rollout-{n}", "host": "h", "state": "idle", "answers": 3} for n in (1, 2)],
        "learner": [{"worker": "learner-0", "host": "h"}],
    },
    "least": [
        {"role": "learner", "num_cpus": 2.0, "num_gpus": 0.0},
        {"role": "rollout", "num_cpus": 0.5, "num_gpus": 1.0},
    ],
}


def episode_row() -> JournalRow:
    """Two turns of the policy, of 2 and 1 tokens, with an environment's answer of 2 tokens between them."""
    turns = (EpisodeTurn(1, "6 * 7", 0.0, ({"role": "tool", "content": "42"},)), EpisodeTurn(4, "42", 1.0))
    numbers = np.asarray([-1.0, -2.0, 0.0, 0.0, -3.0], np.float32)
    return JournalRow(
        position=7,
        prompt_id="sum",
        group_id="9-sum",
        sample_index=1,
        seed=5,
        prompt="What is six times seven?",
        response="6 * 7 42 42",
        prompt_ids=np.arange(4, dtype=np.int32),
        token_ids=np.asarray([11, 12, 13, 14, 15], np.int32),
        logprobs=numbers,
        ref_logprobs=numbers - np.float32(0.5),
        values=np.zeros(0, np.float32),
        rewards={"environment": 1.0, "length": -0.25},
        score=0.75,
        dropped=None,
        versions=np.asarray([3, 3, -1, -1, 4], np.int32),
        action_mask=np.asarray([True, True, False, False, True]),
        finish_reason="stop",
        worker="rollout-1",
        prompt_row={"answer": "42"},
        failures={"length": "too late"},
        episode=EpisodeRecord(turns, None),
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline, a run of one stage with an episode in its journal, and a folder beside them that nobody may read."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "secret.txt").write_text("nobody may read this")
    root = folder / "runs"
    finished_pipeline(root / "toy")
    online = {"reward": 1.0, "monitors": [{"name": "kl", "step": 7, "message": "KL 9.00 is above 5"}]}
    run = finished_run(root / "nested" / "ppo", "ppo", online | {"notes": ["12 rows skipped"]})
    write_step(run / JOURNAL_FOLDER, 9, [episode_row()])
    (run / "status.json").write_text(json.dumps(STATUS))
    return root


@pytest.fixture(scope="module")
def client(runs: Path) -> Iterator[httpx.Client]:
    with served(runs) as client:
        yield client
