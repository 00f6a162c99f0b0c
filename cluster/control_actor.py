"""How a run is watched and steered from any machine that reaches its cluster: a small named actor beside its driver."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from plumbob.cluster.connection import NAMESPACE
from plumbob.core.errors import NotRunningError, UserError, first_line

ANSWER_S = 20.0
"""How long a run's control actor has to answer a person."""

SILENT_S = 60.0
"""After this without an answer from it, those who watch the run are told that it cannot be steered."""


POLL_S = 0.5
"""Between two tries to take a name."""


class ControlRequests(NamedTuple):
    """What people have asked of a run.

    Attributes:
        num_rollout_workers: told once, so that autoscaling goes on from there; None otherwise.
        leaving: ids of nodes that will be taken away; all since the run began.
        stop: since the run began.
    """

    num_rollout_workers: int | None = None
    leaving: frozenset[str] = frozenset()
    stop: bool = False


class Control:
    """Holds what the driver reports and what people want, and refuses what cannot be; a Ray actor."""

    def __init__(self) -> None:
        self._status: Mapping[str, Any] = {}
        self._wanted = ControlRequests()

    def report(self, status: Mapping[str, Any], heard: ControlRequests) -> ControlRequests:
        """What is wanted by now. `heard`: what the driver knows of it, which outlives an actor that dies."""
        self._status = status
        leaving, stop = self._wanted.leaving | heard.leaving, self._wanted.stop or heard.stop
        number, self._wanted = self._wanted.num_rollout_workers, ControlRequests(None, leaving, stop)
        return self._wanted._replace(num_rollout_workers=number)

    def status(self) -> Mapping[str, Any]:
        return self._status

    def scale(self, num_rollout_workers: int) -> int:
        """How many there were. Raises UserError."""
        from plumbob.cluster.admission import check_scale
        from plumbob.cluster.nodes import draining_nodes

        before = check_scale(self._status, num_rollout_workers, self._wanted.leaving | draining_nodes())
        self._wanted = self._wanted._replace(num_rollout_workers=num_rollout_workers)
        return before

    def leave(self, host: str) -> None:
        """That host, by address or name, will be taken away. Raises UserError."""
        from plumbob.cluster.admission import check_leave
        from plumbob.cluster.nodes import draining_nodes, nodes_on

        nodes = nodes_on(host)
        check_leave(self._status, host, nodes, self._wanted.leaving | draining_nodes())
        self._wanted = self._wanted._replace(leaving=self._wanted.leaving | nodes)

    def stop(self) -> None:
        self._wanted = self._wanted._replace(stop=True)


class ControlClient:
    """The driver's side: reports where the run stands and hears what is wanted, without ever waiting.

    Args:
        said: tells whoever watches, once each time that nothing answers any more.
        wait_s: how long another may keep the name: a driver whose host died has it until Ray gives that up.

    Raises:
        UserError: a run of that name is running on the cluster.
    """

    def __init__(self, name: str, said: Callable[[str], None], wait_s: float = 0.0) -> None:
        self._control = _control_of(name, said, wait_s)
        self._said = said
        self._wanted = ControlRequests()
        self._answer: Any = None
        self._silent_since: float | None = None
        self._is_told = False

    def exchange(self, status: Callable[[], Mapping[str, Any]], is_scalable: bool) -> ControlRequests:
        """What was wanted when the driver last heard; the report that is sent now is answered by a later call.

        Args:
            is_scalable: there are rollout workers now; until there are, how many they shall be is not told.
        """
        if self._answer is None or self._has_heard():
            self._answer = self._control.report.remote(status(), self._wanted)
        wanted, untold = self._wanted, self._wanted._replace(num_rollout_workers=None)
        if not is_scalable:
            return untold
        self._wanted = untold
        return wanted

    def _has_heard(self) -> bool:
        """Take the answer to the last report; False while there is none."""
        ready, _ = ray.wait([self._answer], timeout=0)
        if not ready:
            self._is_silent("no answer yet")
            return False
        try:
            heard: ControlRequests = ray.get(self._answer)
        except RayError as error:  # It died, and is started again where it can be.
            self._is_silent(first_line(error))
            return True
        number = heard.num_rollout_workers
        self._wanted = heard._replace(
            num_rollout_workers=self._wanted.num_rollout_workers if number is None else number
        )
        self._silent_since, self._is_told = None, False
        return True

    def _is_silent(self, why: str) -> None:
        now = time.monotonic()
        self._silent_since = self._silent_since or now
        if not self._is_told and now - self._silent_since > SILENT_S:
            self._is_told = True
            self._said(f"nobody can watch or steer this run from elsewhere: its control actor is silent: {why}")

    def close(self) -> None:
        ray.kill(self._control)


def _control_of(name: str, said: Callable[[str], None], wait_s: float) -> Any:
    """A control actor of that name, which another may keep so long. Raises UserError when it does."""
    began, control = time.monotonic(), _begun(name)
    if control is None and wait_s > 0:
        said(
            f"waiting up to {wait_s:g} s for the name {name}: on this cluster a driver that died still has it, or "
            f"another run"
        )
    while control is None and time.monotonic() - began < wait_s:
        time.sleep(POLL_S)
        control = _begun(name)
    if control is None:
        waited = f" after waiting {wait_s:g} s" if wait_s > 0 else ""
        raise UserError(
            f"name={name}: a run of this name is running on this cluster{waited}; give another name=, or look at it "
            f"with: plumbob status {name}"
        )
    return control


def _begun(name: str) -> Any | None:
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
