"""A small named actor beside the driver, by which a run is watched and changed from any machine on its cluster."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from plumbob.cluster.connection import NAMESPACE
from plumbob.cluster.run_status import RunStatus
from plumbob.core.errors import NotRunningError, UserError, first_line

ANSWER_S = 20.0
"""How long a run's control actor has to answer a person."""

SILENT_S = 60.0
"""After this without an answer from it, the user is told that the run cannot be steered."""


MOST_MADE = 100
"""Requests that are kept one by one for a driver that has not asked for a while."""

EVALUATION = "eval"
"""The stage that measures, and makes no steps."""

POLL_S = 0.5
"""Between two tries to take a name."""


class PersonsRequest(NamedTuple):
    """One request, for the record.

    Attributes:
        what: as a command would say it, such as `scale --rollout-workers 3`.
        by: user, host and process that asked.
    """

    what: str
    by: Mapping[str, Any]


class ControlRequests(NamedTuple):
    """What people have asked of a run.

    Attributes:
        num_rollout_workers: told once, so that autoscaling continues from there; None otherwise.
        draining: ids of nodes that will be taken away; all since the run began.
        stop: since the run began.
        save: a checkpoint at the end of the step; told once.
        made: each told once, the newest MOST_MADE of them.
    """

    num_rollout_workers: int | None = None
    draining: frozenset[str] = frozenset()
    stop: bool = False
    save: bool = False
    made: tuple[PersonsRequest, ...] = ()


class Control:
    """Holds what the driver reports and what people request, and refuses what cannot be; a Ray actor."""

    def __init__(self) -> None:
        self._status: RunStatus | None = None
        self._requests = ControlRequests()

    def report(self, status: RunStatus, known: ControlRequests) -> ControlRequests:
        """What is requested by now. `known`: what the driver knows of it, which outlives an actor that dies."""
        self._status = status
        draining, stop = self._requests.draining | known.draining, self._requests.stop or known.stop
        newest, self._requests = self._requests, ControlRequests(None, draining, stop)
        return newest._replace(draining=draining, stop=stop)

    def status(self) -> dict[str, Any]:
        """`RunStatus.as_dict` of the last report; empty before the first."""
        return {} if self._status is None else self._status.as_dict()

    def scale(self, num_rollout_workers: int, by: Mapping[str, Any]) -> int:
        """How many there were. Raises UserError."""
        from plumbob.cluster.admission import check_scale
        from plumbob.cluster.nodes import draining_nodes

        before = check_scale(self._reported(), num_rollout_workers, self._requests.draining | draining_nodes())
        self._requests = self._requests._replace(num_rollout_workers=num_rollout_workers)
        self._note(f"scale --rollout-workers {num_rollout_workers}", by)
        return before

    def drain_host(self, host: str, by: Mapping[str, Any]) -> None:
        """That host, by address or name, will be taken away. Raises UserError."""
        from plumbob.cluster.admission import check_drain
        from plumbob.cluster.nodes import draining_nodes, nodes_on

        nodes = nodes_on(host)
        check_drain(self._reported(), host, nodes, self._requests.draining | draining_nodes())
        self._requests = self._requests._replace(draining=self._requests.draining | nodes)
        self._note(f"scale --leave {host}", by)

    def stop(self, by: Mapping[str, Any]) -> None:
        self._requests = self._requests._replace(stop=True)
        self._note("stop", by)

    def save(self, by: Mapping[str, Any]) -> None:
        """Raises UserError where no step will end that it could be made at."""
        status = self._reported()
        if status.stage == EVALUATION:
            raise UserError(
                "an evaluation makes no steps, and so no checkpoints: wait for its end, or end it now with plumbob stop"
            )
        if status.step is not None and status.step.step >= status.step.num_steps:
            raise UserError("this stage has made its last step, which is saved: there is nothing more to save")
        self._requests = self._requests._replace(save=True)
        self._note("save", by)

    def _note(self, what: str, by: Mapping[str, Any]) -> None:
        made = (*self._requests.made, PersonsRequest(what, by))[-MOST_MADE:]
        self._requests = self._requests._replace(made=made)

    def _reported(self) -> RunStatus:
        if self._status is None:
            raise UserError("this run is just starting, and has not said yet what workers it has; try again")
        return self._status


class ControlClient:
    """The driver's side: reports where the run stands and hears what is wanted, without ever waiting.

    Args:
        notify: for the user, called once each time that nothing answers any more.
        wait_s: how long another may keep the name: a driver whose host died has it until Ray gives that up.

    Raises:
        UserError: a run of that name is running on the cluster.
    """

    def __init__(self, name: str, notify: Callable[[str], None], wait_s: float = 0.0) -> None:
        self._control = _control_of(name, notify, wait_s)
        self._notify = notify
        self._requests = ControlRequests()
        self._answer: Any = None
        self._silent_since: float | None = None
        self._is_notified = False

    def exchange(self, status: Callable[[], RunStatus], is_scalable: bool) -> ControlRequests:
        """What was requested when the driver last heard; the report that is sent now is answered by a later call.

        Args:
            is_scalable: there are rollout workers now; until there are, how many they shall be is kept back.
        """
        if self._answer is None or self._take_answer():
            self._answer = self._control.report.remote(status(), self._requests)
        requests, reported = self._requests, self._requests._replace(num_rollout_workers=None, save=False, made=())
        if not is_scalable:
            self._requests = self._requests._replace(save=False, made=())
            return requests._replace(num_rollout_workers=None)
        self._requests = reported
        return requests

    def _take_answer(self) -> bool:
        """Take the answer to the last report; False while there is none."""
        ready, _ = ray.wait([self._answer], timeout=0)
        if not ready:
            self._is_silent("no answer yet")
            return False
        try:
            known: ControlRequests = ray.get(self._answer)
        except RayError as error:  # It died, and is started again where it can be.
            self._is_silent(first_line(error))
            return True
        number = known.num_rollout_workers
        self._requests = known._replace(
            num_rollout_workers=self._requests.num_rollout_workers if number is None else number,
            save=self._requests.save or known.save,
            made=(*self._requests.made, *known.made),
        )
        self._silent_since, self._is_notified = None, False
        return True

    def _is_silent(self, why: str) -> None:
        now = time.monotonic()
        self._silent_since = self._silent_since or now
        if not self._is_notified and now - self._silent_since > SILENT_S:
            self._is_notified = True
            self._notify(f"nobody can watch or steer this run from elsewhere: its control actor is silent: {why}")

    def close(self) -> None:
        ray.kill(self._control)


def _control_of(name: str, notify: Callable[[str], None], wait_s: float) -> Any:
    """A control actor of that name, which another may keep so long. Raises UserError when it does."""
    began, control = time.monotonic(), _started(name)
    if control is None and wait_s > 0:
        notify(
            f"waiting up to {wait_s:g} s for the name {name}: on this cluster a driver that died still has it, or "
            f"another run"
        )
    while control is None and time.monotonic() - began < wait_s:
        time.sleep(POLL_S)
        control = _started(name)
    if control is None:
        waited = f" after waiting {wait_s:g} s" if wait_s > 0 else ""
        raise UserError(
            f"name={name}: a run of this name is running on this cluster{waited}; give another name=, or look at it "
            f"with: plumbob status {name}"
        )
    return control


def _started(name: str) -> Any | None:
    """A control actor of that name on this host; None while another run has it."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"name": name, "namespace": NAMESPACE, "num_cpus": 0, "scheduling_strategy": here, "max_restarts": -1}
    try:
        return ray.remote(Control).options(**options).remote()
    except ValueError:
        return None


def find(name: str) -> Any:
    """The control actor of a run that is running on the cluster that was joined. Raises NotRunningError."""
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError as error:
        running = sorted(ray.util.list_named_actors())
        raise NotRunningError(
            f"{name}: no run of this name is running on this cluster; running: {', '.join(running) or 'none'}"
        ) from error


def answer(result: Any) -> Any:
    """What a control actor answers.

    Raises:
        UserError: what it refuses with; or it does not answer within the bound.
    """
    try:
        return ray.get(result, timeout=ANSWER_S)
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    except RayError as error:
        raise UserError(f"the run does not answer: {first_line(error)}") from error
