"""The actor that a run is steered by, on a real Ray."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import ray

import plumbob.cluster.control_actor
from plumbob.cluster.calls import wait_until
from plumbob.cluster.control_actor import Control, ControlClient, ControlRequests, PersonsRequest, answer, find
from plumbob.cluster.nodes import living_nodes
from plumbob.cluster.run_status import RunStatus
from plumbob.core.errors import UserError
from tests.support.ray_worker import NeverBegins
from tests.support.run_statuses import TWO_ROLLOUT_WORKERS, at_step

pytestmark = pytest.mark.usefixtures("one_cpu")

TIMEOUT_S = 120.0

STATUS = at_step(TWO_ROLLOUT_WORKERS, 7)
ME = {"user": "ann", "host": "desk", "pid": 7}


def heard(steering: ControlClient, is_so: Callable[[ControlRequests], bool]) -> bool:
    """Whether the driver comes to hear it, as it reports again and again."""
    return wait_until(lambda: is_so(steering.exchange(lambda: STATUS, True)), TIMEOUT_S)


@pytest.fixture
def steering() -> Iterator[ControlClient]:
    """Of a run that has reported."""
    steering = ControlClient("one", print)
    assert steering.exchange(lambda: STATUS, True) == ControlRequests()
    assert wait_until(lambda: answer(find("one").status.remote()) == STATUS.as_dict(), TIMEOUT_S)
    yield steering
    steering.close()


def test_a_run_is_watched_and_steered_by_its_name(steering: ControlClient) -> None:
    control = find("one")
    assert answer(control.scale.remote(3, ME)) == 2
    scaled = PersonsRequest("scale --rollout-workers 3", ME)
    assert heard(steering, lambda wanted: wanted == ControlRequests(num_rollout_workers=3, made=(scaled,)))
    # It is told once, however often the driver asks: autoscaling continues from there.
    answer(control.stop.remote(ME))
    told: list[ControlRequests] = []
    assert heard(steering, lambda wanted: told.append(wanted) or wanted.stop)
    assert {wanted.num_rollout_workers for wanted in told} == {None}
    assert [request for wanted in told for request in wanted.made] == [PersonsRequest("stop", ME)]


def test_a_checkpoint_is_asked_for_once(steering: ControlClient) -> None:
    answer(find("one").save.remote(ME))
    assert heard(steering, lambda wanted: wanted.save and wanted.made == (PersonsRequest("save", ME),))
    assert steering.exchange(lambda: STATUS, True) == ControlRequests()
    over = Control()
    step = STATUS.step
    assert step is not None
    over.report(replace(STATUS, step=replace(step, step=step.num_steps)), ControlRequests())
    with pytest.raises(UserError, match="made its last step, which is saved"):
        over.save(ME)
    over.report(replace(STATUS, stage="eval", step=None), ControlRequests())
    with pytest.raises(UserError, match=r"an evaluation makes no steps, .* plumbob stop"):
        over.save(ME)


def test_a_number_of_workers_is_kept_until_there_are_some(steering: ControlClient) -> None:
    assert answer(find("one").scale.remote(3, ME)) == 2
    made: list[PersonsRequest] = []
    for step in (8, 9):  # The second is sent when the answer to the first has been heard.

        def shows(status: RunStatus) -> bool:
            requests = steering.exchange(lambda: status, False)
            made.extend(requests.made)
            assert requests._replace(made=()) == ControlRequests()
            return answer(find("one").status.remote()) == status.as_dict()

        assert wait_until(partial(shows, at_step(STATUS, step)), TIMEOUT_S)
    assert made == [PersonsRequest("scale --rollout-workers 3", ME)]  # Who asked is known at once.
    assert steering.exchange(lambda: STATUS, True) == ControlRequests(num_rollout_workers=3)
    assert steering.exchange(lambda: STATUS, True) == ControlRequests()


def test_what_cannot_be_is_refused(steering: ControlClient) -> None:
    control = find("one")
    with pytest.raises(UserError, match=r"--rollout-workers 9: there are 2 now, and for 7 more 0\.75 CPUs are missing"):
        answer(control.scale.remote(9, ME))
    with pytest.raises(UserError, match=r"10\.9\.9\.9: no host of this cluster"):
        answer(control.drain_host.remote("10.9.9.9", ME))
    # Once a later wish has come, so has what was wished before it.
    answer(control.stop.remote(ME))
    told: list[ControlRequests] = []
    assert heard(steering, lambda wanted: told.append(wanted) or wanted.stop)
    assert {(wanted.num_rollout_workers, wanted.draining) for wanted in told} == {(None, frozenset())}


def test_a_run_survives_the_death_of_its_control_actor(steering: ControlClient) -> None:
    control = find("one")
    answer(control.stop.remote(ME))
    assert heard(steering, lambda wanted: wanted.stop)
    ray.kill(control, no_restart=False)

    def shows(status: RunStatus) -> bool:
        assert steering.exchange(lambda: status, True).stop
        return answers(control) == status.as_dict()

    # When the third report shows, two answers of the new actor have been heard.
    for step in (8, 9, 10):
        assert wait_until(partial(shows, at_step(STATUS, step)), TIMEOUT_S)


def test_an_actor_that_is_started_again_knows_what_the_driver_knew() -> None:
    before, again = Control(), Control()
    before.stop(ME)
    draining = frozenset(living_nodes())
    heard = before.report(STATUS, ControlRequests(draining=draining))
    assert heard.made == (PersonsRequest("stop", ME),)
    assert again.report(STATUS, heard) == ControlRequests(draining=draining, stop=True)
    # Before the first report there is nothing to compare with.
    assert Control().status() == {}
    with pytest.raises(UserError, match="this run is just starting, and has not said yet"):
        Control().scale(3, ME)
    # It counts no room on hosts that are draining.
    with pytest.raises(UserError, match=r"--rollout-workers 3: there are 2 now, and for 1 more there is no host"):
        again.scale(3, ME)


def test_an_actor_that_never_starts_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plumbob.cluster.control_actor, "Control", NeverBegins)
    monkeypatch.setattr(plumbob.cluster.control_actor, "SILENT_S", 0.0)
    said: list[str] = []
    reports: list[object] = []

    def status() -> RunStatus:
        reports.append(STATUS)
        return STATUS

    steering = ControlClient("five", said.append)
    # A report is sent when the one before has come to nothing.
    assert wait_until(lambda: steering.exchange(status, True) == ControlRequests() and len(reports) > 4, TIMEOUT_S)
    steering.close()
    (told,) = said
    assert told.startswith("nobody can watch or steer this run from elsewhere: its control actor is silent: ")


def answers(control: Any) -> Any:
    try:
        return answer(control.status.remote())
    except UserError:
        return None


def test_a_name_belongs_to_one_run_at_a_time() -> None:
    first = ControlClient("two", print)
    with pytest.raises(UserError, match="name=two: a run of this name is running on this cluster"):
        ControlClient("two", print)
    with pytest.raises(UserError, match=r"three: no run of this name is running on this cluster; running: .*two"):
        find("three")
    first.close()

    def is_free() -> bool:
        try:
            ControlClient("two", print).close()
        except UserError:
            return False
        return True

    assert wait_until(is_free, TIMEOUT_S)


def test_a_name_is_waited_for_that_a_driver_that_died_still_has() -> None:
    first, said = ControlClient("six", print), list[str]()

    def say(message: str) -> None:
        said.append(message)
        first.close()

    ControlClient("six", say, TIMEOUT_S).close()
    (told,) = said
    assert told.startswith("waiting up to 120 s for the name six: on this cluster a driver that died still has it")


def test_a_name_that_stays_another_runs_is_refused_when_the_wait_is_over() -> None:
    first, said = ControlClient("seven", print), list[str]()
    with pytest.raises(
        UserError, match=r"name=seven: a run of this name is running .* after waiting 0\.1 s; give another"
    ):
        ControlClient("seven", said.append, 0.1)
    assert len(said) == 1
    first.close()


def test_a_run_that_is_gone_does_not_answer() -> None:
    steering = ControlClient("four", print)
    control = find("four")
    answer(control.stop.remote(ME))
    steering.close()
    assert wait_until(lambda: answers(control) is None, TIMEOUT_S)  # Ray kills it in its own time.
    with pytest.raises(UserError, match="the run does not answer"):
        answer(control.status.remote())
