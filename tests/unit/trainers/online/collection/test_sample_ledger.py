"""The ledger: what became of every response, by hand, and over whole loops."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plumbob.configs.settings.algorithms import DynamicSamplingSettings
from plumbob.rollout.rollout_records import Rollout, SampleRequest
from plumbob.trainers.online.collection.sample_ledger import NUM_VERSIONS, SampleLedger
from plumbob.trainers.online.online_loop import run_online, run_online_asynchronous
from plumbob.trainers.online.recorder import LEDGER_FILE
from tests.support.online_world import DriverDeathError, play, recorded, settings


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
def ledger() -> SampleLedger:
    """Four responses of version 0, one of them not yet scored, two trained on and one dropped; one of version 1."""
    ledger = SampleLedger()
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


def test_a_response_stays_in_the_row_that_it_was_issued_in(ledger: SampleLedger) -> None:
    expected = {"0": row(4, 4, 3, 2, flat=1), "1": row(1, 0, 0, 0)}
    assert ledger.counts().as_dict() == {"versions": expected, "older": row(0, 0, 0, 0), "reissued": 2}


def test_a_resumed_ledger_continues_without_what_was_in_flight(ledger: SampleLedger) -> None:
    kept = json.loads(json.dumps(ledger.completed()))
    older = row(0, 0, 0, 0)
    assert kept == {"versions": {"0": row(3, 3, 3, 2, flat=1)}, "older": older, "taken": -1, "reissued": 2}
    resumed = SampleLedger()
    resumed.load_state(kept)
    assert resumed.completed() == kept
    resumed.published(1)
    resumed.issued(ASKED[3:])
    assert resumed.counts().as_dict()["versions"] == kept["versions"] | {"1": row(1, 0, 0, 0)}


def test_a_row_is_given_away_once_nothing_can_be_added_to_it(ledger: SampleLedger) -> None:
    # Version 0 has one response in flight, and version 1 is the newest.
    assert ledger.take_final() == []
    ledger.scored(RESPONSES[3:])
    ledger.trained(RESPONSES[3:])
    assert ledger.take_final() == [{"version": 0, **row(4, 4, 4, 3, flat=1)}]
    ledger.published(2)
    ledger.issued(ASKED[:1])
    assert ledger.take_final() == []  # Version 1 still has one in flight; version 0 was given away.
    ledger.finished([response(LATER[0])])
    ledger.dropped([response(LATER[0])], "flat")
    ledger.stopped()
    rest = [{"version": 1, **row(1, 1, 0, 0, flat=1)}, {"version": 2, **row(1, 0, 0, 0, stopped=1)}]
    assert ledger.take_final(has_ended=True) == rest
    assert list(ledger.counts().as_dict()["versions"]) == ["0", "1", "2"]


def after(num_versions: int) -> SampleLedger:
    """One response a version, trained on, all but the last final; the state is taken as at every commit."""
    ledger = SampleLedger()
    for version in range(num_versions):
        ledger.published(version)
        trained_on(ledger, version)
        ledger.take_final()
    return ledger


def trained_on(ledger: SampleLedger, version: int) -> None:
    asked = request(str(version), 0)
    ledger.issued([asked])
    for happens in (ledger.finished, ledger.scored, ledger.trained):
        happens([response(asked)])


def test_the_newest_versions_stay_and_the_older_are_summed() -> None:
    ledger = after(NUM_VERSIONS + 10)
    content = ledger.counts().as_dict()
    assert list(content["versions"]) == [str(version) for version in range(10, NUM_VERSIONS + 10)]
    assert content["older"] == row(10, 10, 10, 10)
    resumed = SampleLedger()
    resumed.load_state(json.loads(json.dumps(ledger.completed())))
    assert resumed.completed() == ledger.completed()
    resumed.published(NUM_VERSIONS + 10)
    assert resumed.take_final() == [{"version": NUM_VERSIONS + 9, **row(1, 1, 1, 1)}]


def test_the_state_of_an_older_run_is_taken_with_all_its_versions() -> None:
    old = {"versions": {str(version): row(2, 2, 2, 1, flat=1) for version in range(100)}, "reissued": 3}
    ledger = SampleLedger()
    ledger.load_state(old)
    ledger.published(100)
    assert [line["version"] for line in ledger.take_final()] == list(range(100))
    content = ledger.counts().as_dict()
    assert len(content["versions"]) == NUM_VERSIONS and content["reissued"] == 3
    assert content["older"] == row(72, 72, 72, 36, flat=36)


def calls_of_a_step(num_versions: int) -> tuple[int, int]:
    """Bytes of the state after so many versions, and the calls that one more costs: a count that no clock disturbs."""
    ledger, calls = after(num_versions), 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        ledger.published(num_versions)
        trained_on(ledger, num_versions)
        ledger.take_final()
        ledger.completed()
        ledger.counts().as_dict()
    finally:
        sys.setprofile(None)
    return len(json.dumps(ledger.completed())), calls


def test_neither_state_nor_work_grows_with_the_number_of_steps() -> None:
    calls_of_a_step(1)  # Python remembers which classes are mappings.
    (few, calls), (many, calls_of_many) = calls_of_a_step(1_000), calls_of_a_step(100_000)
    assert many < 8 * 1024 and many - few < 500  # Longer numbers.
    assert calls_of_many == calls


def test_what_is_in_flight_when_a_run_stops_is_dropped(ledger: SampleLedger) -> None:
    ledger.stopped()
    expected = {"0": row(4, 4, 3, 2, flat=1, stopped=1), "1": row(1, 0, 0, 0, stopped=1)}
    assert ledger.counts().as_dict()["versions"] == expected
    with pytest.raises(KeyError):
        ledger.trained(RESPONSES[3:])


def test_no_response_is_accounted_for_twice(ledger: SampleLedger) -> None:
    with pytest.raises(KeyError):
        ledger.trained(RESPONSES[:1])


@pytest.mark.parametrize(("loop", "max_staleness"), [(run_online, 0), (run_online_asynchronous, 2)])
@pytest.mark.parametrize(
    "changes", [{}, {"dynamic_sampling": DynamicSamplingSettings(max_rounds=3)}], ids=["once", "rounds"]
)
def test_every_response_of_a_run_is_accounted_for(
    tmp_path: Path, loop: Any, max_staleness: int, changes: dict[str, Any]
) -> None:
    run = settings(max_staleness=max_staleness, samples_per_prompt=2, **changes)
    world, state = play(run, tmp_path, loop=loop)
    rows = state.ledger.counts().as_dict()["versions"].values()
    for counts in rows:
        completed = counts["trained"] + sum(counts["dropped"].values())
        assert counts["issued"] == counts["finished"] == counts["scored"] == completed
    assert sum(counts["issued"] for counts in rows) == len(world.requests)
    # 6 steps of 2 groups of 2; what else was asked is of groups without spread.
    assert sum(counts["trained"] for counts in rows) == 24
    num_dropped = sum(counts["dropped"].get("flat", 0) for counts in rows)
    assert num_dropped == len(world.requests) - 24 and (num_dropped > 0) == bool(changes)


@pytest.mark.parametrize(("loop", "max_staleness"), [(run_online, 0), (run_online_asynchronous, 2)])
def test_a_resumed_run_accounts_for_the_same_responses(tmp_path: Path, loop: Any, max_staleness: int) -> None:
    run = settings(max_staleness=max_staleness)
    _, whole = play(run, tmp_path, loop=loop)
    _, resumed = play(run, tmp_path, resume_at=3, loop=loop)
    for state in (whole, resumed):
        rows = state.ledger.counts().as_dict()["versions"].values()
        # 6 steps of 2 responses, however many were in flight when step 3 was committed.
        assert [sum(counts[name] for counts in rows) for name in ("issued", "trained")] == [12, 12]
    if loop is run_online:
        assert resumed.ledger.counts().as_dict() == whole.ledger.counts().as_dict()


def test_the_file_of_a_resumed_run_has_each_version_once(tmp_path: Path) -> None:
    """Rows that are written before a commit that does not come are written again by the resumed run."""
    run = settings(num_steps=4)
    with pytest.raises(DriverDeathError):
        recorded(run, tmp_path, "commit")  # In the commit of step 2, after its lines.
    path = tmp_path / LEDGER_FILE
    path.write_text(path.read_text() + '{"step": 2, "version": 0}\n{"step": 2, "ver')
    recorded(run, tmp_path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    # Version n is final once n + 1 is published, at the commit of step n + 2; the last is at the end.
    assert rows == [{"step": version + 2, "version": version, **row(2, 2, 2, 2)} for version in range(4)]
    recorded(run, tmp_path)  # Resumed before the result was written: what is left is accounted for again.
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows
