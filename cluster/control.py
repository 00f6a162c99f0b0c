"""How a run is watched and steered from any machine that reaches its cluster: a small named actor beside its driver."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.connect import NAMESPACE
from configs.errors import RunFailed, UserError

ANSWER_S = 20.0
"""How long a run's control actor has to answer a person."""

REFRESH_S = 1.0


class Wanted(NamedTuple):
    """What people have asked of a run since it began; None where nothing was.

    Attributes:
        leaving: ids of nodes that will be taken away.
    """

    num_rollout_workers: int | None = None
    leaving: frozenset[str] = frozenset()
    stop: bool = False


class Control:
    """Holds what the driver reports and what people want; a Ray actor."""

    def __init__(self) -> None:
        self._status: Mapping[str, Any] = {}
        self._wanted = Wanted()

    def report(self, status: Mapping[str, Any]) -> Wanted:
        self._status = status
        return self._wanted

    def status(self) -> Mapping[str, Any]:
        return self._status

    def scale(self, num_rollout_workers: int) -> None:
        self._wanted = self._wanted._replace(num_rollout_workers=num_rollout_workers)

    def leave(self, nodes: frozenset[str]) -> None:
        self._wanted = self._wanted._replace(leaving=self._wanted.leaving | nodes)

    def stop(self) -> None:
        self._wanted = self._wanted._replace(stop=True)


class Steering:
    """The driver's side: reports where the run stands and hears what is wanted, without ever waiting.

    Raises:
        UserError: a run of that name is running on the cluster.
    """

    def __init__(self, name: str) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options = {"name": name, "namespace": NAMESPACE, "num_cpus": 0, "scheduling_strategy": here}
        try:
            self._control = ray.remote(Control).options(**options).remote()
        except ValueError as error:
            raise UserError(
                f"name={name}: a run of this name is running on this cluster; give another name=, or look at it with: "
                f"plumbob status {name}"
            ) from error
        self._answer: Any = None
        self._wanted = Wanted()

    def exchange(self, status: Callable[[], Mapping[str, Any]]) -> Wanted:
        """What was wanted when the driver last heard; the report that is sent now is answered by a later call."""
        if self._answer is not None:
            ready, _ = ray.wait([self._answer], timeout=0)
            if not ready:
                return self._wanted
            try:
                self._wanted = ray.get(self._answer)
            except RayError as error:
                raise RunFailed(f"the run's control actor, on the driver's own host, is gone: {error}") from error
        self._answer = self._control.report.remote(status())
        return self._wanted

    def close(self) -> None:
        ray.kill(self._control)


def find(name: str) -> Any:
    """The control actor of a run that is running on the cluster that was joined. Raises UserError."""
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError as error:
        running = sorted(each["name"] for each in ray.util.list_named_actors(all_namespaces=True))
        raise UserError(
            f"{name}: no run of this name is running on this cluster; running: {', '.join(running) or 'none'}"
        ) from error


def ask(control: Any, method: str, *arguments: Any) -> Any:
    """Call a method of a control actor. Raises UserError when it does not answer within the bound."""
    try:
        return ray.get(getattr(control, method).remote(*arguments), timeout=ANSWER_S)
    except RayError as error:
        raise UserError(f"the run does not answer: {str(error).splitlines()[0]}") from error
