"""Pods as large as hosts: how many workers of a role share one, what it has, and how many there are."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from plumbob.cluster.resources import TOLERANCE, ResourceAmount, ResourceNeed
from plumbob.configs.settings.kuberay import KubeRaySettings
from plumbob.configs.settings.workers import AutoscaleSettings


@dataclass(frozen=True)
class PodGroup:
    """Equal pods for workers of one role.

    Attributes:
        size: what each pod has for them: whole CPUs and GPUs.
        min_replicas, max_replicas: between which Ray's autoscaler may change their number; equal where none does.
    """

    name: str
    size: ResourceAmount
    replicas: int
    min_replicas: int
    max_replicas: int


def pod_groups(
    needs: Sequence[ResourceNeed], kuberay: KubeRaySettings, autoscale: AutoscaleSettings | None
) -> tuple[PodGroup, ...]:
    """For each role pods as full as a node allows, and one for the workers that are left.

    Args:
        autoscale: of the rollout workers, whose pods then hold as few as whole CPUs and GPUs allow, as they come and
            go one by one.
    """
    groups: list[PodGroup] = []
    for need in needs:
        if need.role == "rollout" and autoscale is not None:
            groups.append(_changing(need, kuberay, autoscale))
        else:
            groups += _fixed(need, kuberay)
    return tuple(groups)


def _fixed(need: ResourceNeed, kuberay: KubeRaySettings) -> Iterator[PodGroup]:
    held = min(workers_per_pod(need, kuberay), need.count)
    full, rest = divmod(need.count, held)
    for name, workers, replicas in ((need.role, held, full), (f"{need.role}-rest", rest, 1)):
        if workers:
            yield PodGroup(name, pod_size(need, workers, kuberay), replicas, replicas, replicas)


def _changing(need: ResourceNeed, kuberay: KubeRaySettings, autoscale: AutoscaleSettings) -> PodGroup:
    one = {"gpus_per_pod": max(1, math.ceil(need.num_gpus)), "cpus_per_pod": math.ceil(need.num_cpus)}
    held = workers_per_pod(need, kuberay.model_copy(update=one))
    least, now, most = (
        math.ceil(workers / held) for workers in (autoscale.min_workers, need.count, autoscale.max_workers)
    )
    return PodGroup(need.role, pod_size(need, held, kuberay), now, min(least, now), max(now, most))


def workers_per_pod(need: ResourceNeed, kuberay: KubeRaySettings) -> int:
    """How many fit on one node, and at least one: by its GPUs, or by its CPUs where they have no GPU."""
    if not need.num_gpus:
        return max(1, int(kuberay.cpus_per_pod / need.num_cpus + TOLERANCE))
    if need.num_gpus < 1:
        return kuberay.gpus_per_pod * _sharing_a_gpu(need)
    return max(1, int(kuberay.gpus_per_pod / need.num_gpus + TOLERANCE))


def pod_size(need: ResourceNeed, workers: int, kuberay: KubeRaySettings) -> ResourceAmount:
    """What a pod with so many workers has. Each GPU comes with a CPU and `gib_per_gpu` at least."""
    if 0 < need.num_gpus < 1:
        gpus = math.ceil(workers / _sharing_a_gpu(need))
    else:
        gpus = math.ceil(workers * need.num_gpus - TOLERANCE)
    cpus = max(math.ceil(workers * need.num_cpus - TOLERANCE), gpus, 1)
    return ResourceAmount(cpus, gpus, max(workers * need.memory_gib, gpus * kuberay.gib_per_gpu))


def _sharing_a_gpu(need: ResourceNeed) -> int:
    """How many workers with a part of a GPU share one: none has parts of two."""
    return int(1 / need.num_gpus + TOLERANCE)
