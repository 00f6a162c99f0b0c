"""The ledger: what became of every response, by hand, and over whole loops."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plumbob.configs.settings.algorithms import DynamicSamplingSettings
from plumbob.rollout.rollout_records import Rollout, SampleRequest
from plumbob.trainers.online.ppo import run_ppo, run_ppo_asynchronous
from plumbob.trainers.online.sample_ledger import Ledger
from tests.support.ppo_world import play, settings


def request(group: str, index: int) -> SampleRequest:
    return SampleRequest("p", group, index, 0, "q", np.array([3], np.int32))


def response(asked: SampleRequest) -> Rollout:
    ones = np.ones(1, np.int32)
    return Rollout(asked, "stop", "a", ones, -np.ones(1, np.float32), ones, ones > 0, "w")


ASKED = [request(group, index) for group in ("0-0", "0-1") for index in (0, 1)]
RESPONSES = [response(asked) for asked in ASKED]
LATER = [request("1-0", 0)]


def row(issued: int, finished: int, scored: int, trained: int, **dropped: int) -> dict[str, Any]:
    return {"issued": issued, "finished": finished, "scored": scored, "trained": trained, "dropped": dropped}


@pytest.fixture
def ledger() -> Ledger:
    """Four responses of version 0, one of them not yet scored, two trained on and one dropped; one of version 1."""
    ledger = Ledger()
    ledger.published(0)
    ledger.issued(ASKED)
    ledger.reissued(2)
    ledger.published(1)
    ledger.finished(RESPONSES)
    ledger.scored(RESPONSES[:3])
    ledger.issued(LATER)
    ledger.trained(RESPONSES[:2])
    ledger.dropped(RESPONSES[2:3], "flat")
    return ledger


def test_a_response_stays_in_the_row_that_it_was_issued_in(ledger: Ledger) -> None:
    expected = {"0": row(4, 4, 3, 2, flat=1), "1": row(1, 0, 0, 0)}
    assert ledger.as_dict() == {"versions": expected, "reissued": 2}


def test_a_resumed_ledger_goes_on_without_what_was_in_flight(ledger: Ledger) -> None:
    kept = json.loads(json.dumps(ledger.settled()))
    assert kept == {"versions": {"0": row(3, 3, 3, 2, flat=1)}, "reissued": 2}
    resumed = Ledger()
    resumed.load_state(kept)
    assert resumed.as_dict() == kept
    resumed.published(1)
    resumed.issued(ASKED[3:])
    assert resumed.as_dict()["versions"] == kept["versions"] | {"1": row(1, 0, 0, 0)}


def test_what_is_in_flight_when_a_run_stops_is_dropped(ledger: Ledger) -> None:
    ledger.stopped()
    expected = {"0": row(4, 4, 3, 2, flat=1, stopped=1), "1": row(1, 0, 0, 0, stopped=1)}
    assert ledger.as_dict()["versions"] == expected
    with pytest.raises(KeyError):
        ledger.trained(RESPONSES[3:])


def test_no_response_is_accounted_for_twice(ledger: Ledger) -> None:
    with pytest.raises(KeyError):
        ledger.trained(RESPONSES[:1])


@pytest.mark.parametrize(("loop", "max_staleness"), [(run_ppo, 0), (run_ppo_asynchronous, 2)])
@pytest.mark.parametrize(
    "changes", [{}, {"dynamic_sampling": DynamicSamplingSettings(max_rounds=3)}], ids=["once", "rounds"]
)
def test_every_response_of_a_run_is_accounted_for(
    tmp_path: Path, loop: Any, max_staleness: int, changes: dict[str, Any]
) -> None:
    run = settings(max_staleness=max_staleness, samples_per_prompt=2, **changes)
    world, state = play(run, tmp_path, loop=loop)
    rows = state.ledger.as_dict()["versions"].values()
    for counts in rows:
        settled = counts["trained"] + sum(counts["dropped"].values())
        assert counts["issued"] == counts["finished"] == counts["scored"] == settled
    assert sum(counts["issued"] for counts in rows) == len(world.requests)
    # 6 steps of 2 groups of 2; what else was asked is of groups without spread.
    assert sum(counts["trained"] for counts in rows) == 24
    num_dropped = sum(counts["dropped"].get("flat", 0) for counts in rows)
    assert num_dropped == len(world.requests) - 24 and (num_dropped > 0) == bool(changes)


@pytest.mark.parametrize(("loop", "max_staleness"), [(run_ppo, 0), (run_ppo_asynchronous, 2)])
def test_a_resumed_run_accounts_for_the_same_responses(tmp_path: Path, loop: Any, max_staleness: int) -> None:
    run = settings(max_staleness=max_staleness)
    _, whole = play(run, tmp_path, loop=loop)
    _, resumed = play(run, tmp_path, resume_at=3, loop=loop)
    for state in (whole, resumed):
        rows = state.ledger.as_dict()["versions"].values()
        # 6 steps of 2 responses, however many were in flight when step 3 was committed.
        assert [sum(counts[name] for counts in rows) for name in ("issued", "trained")] == [12, 12]
    if loop is run_ppo:
        assert resumed.ledger.as_dict() == whole.ledger.as_dict()
