"""A status on its way through JSON: nothing is lost, and its keys are the old ones."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from plumbob.cluster.resources import ResourceNeed
from plumbob.cluster.run_status import AutoscaleBounds, RunStatus, WorkerStatus
from plumbob.trainers.metrics.response_counts import CountsByVersion, ResponseCounts
from tests.support.run_statuses import NO_STATUS, TWO_ROLLOUT_WORKERS, at_step

FULL = replace(
    at_step(TWO_ROLLOUT_WORKERS, 7),
    last_message="a worker is replaced",
    workers={
        "learner": (WorkerStatus("learner-0", "10.0.0.1"),),
        "rollout": (WorkerStatus("rollout-1", "10.0.0.2", "sampling", 0),),
        "gold_scorer": (WorkerStatus("gold_scorer-2", "10.0.0.2", "idle", 5),),
    },
    minimum_needs=(ResourceNeed("learner", "learner.num_workers", 1, 0.5, 0.0, 1.0, spread=False),),
    autoscale=AutoscaleBounds(1, 3),
    workers_lost=2,
    responses=CountsByVersion(
        {3: ResponseCounts(issued=2, trained=1, dropped=Counter(flat=1))}, ResponseCounts(issued=4), 1
    ),
)


@pytest.mark.parametrize("status", [NO_STATUS, replace(NO_STATUS, stage="sft"), FULL])
def test_nothing_is_lost_on_the_way(status: RunStatus) -> None:
    assert RunStatus.from_dict(json.loads(json.dumps(status.as_dict()))) == status


def test_the_keys_of_the_workers_are_those_that_scripts_know() -> None:
    assert FULL.as_dict()["workers"] == {
        "learner": [{"worker": "learner-0", "host": "10.0.0.1"}],
        "rollout": [{"worker": "rollout-1", "host": "10.0.0.2", "state": "sampling", "answers": 0}],
        "gold_scorer": [{"worker": "gold_scorer-2", "host": "10.0.0.2", "state": "idle", "scores": 5}],
    }
    assert FULL.as_dict()["answers"]["versions"] == {
        "3": {"issued": 2, "finished": 0, "scored": 0, "trained": 1, "dropped": {"flat": 1}}
    }
    assert FULL.as_dict()["autoscale"] == {"min_workers": 1, "max_workers": 3}


def test_what_is_no_status_is_refused() -> None:
    with pytest.raises(KeyError):
        RunStatus.from_dict({"step": 9})
