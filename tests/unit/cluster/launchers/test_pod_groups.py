"""Pods as large as hosts."""

from dataclasses import replace

import pytest

from plumbob.cluster.launchers.kuberay import autoscale_of
from plumbob.cluster.launchers.pod_groups import PodGroup, pod_groups
from plumbob.cluster.placement import plan
from plumbob.cluster.resources import Host, ResourceAmount, resource_needs
from plumbob.configs.settings.kuberay import KubeRaySettings
from plumbob.configs.settings.workers import AutoscaleSettings
from tests.support.submitted_run import need, online

HOSTS = KubeRaySettings(gpus_per_pod=8, cpus_per_pod=16, gib_per_gpu=12)


def fixed(name: str, size: ResourceAmount, replicas: int) -> PodGroup:
    return PodGroup(name, size, replicas, replicas, replicas)


def test_ranks_of_one_host_share_a_pod() -> None:
    # 8 GPUs with a CPU and 12 GiB each, though the workers ask for half a CPU and 1 GiB.
    assert pod_groups([need(8, 0.5, 1)], HOSTS, None) == (fixed("learner", ResourceAmount(8, 8, 96), 1),)
    # 20 are two nodes full and four more.
    assert pod_groups([need(20, 2, 1)], HOSTS, None) == (
        fixed("learner", ResourceAmount(16, 8, 96), 2),
        fixed("learner-rest", ResourceAmount(8, 4, 48), 1),
    )
    # Nodes of 4 GPUs; workers of 3, of which one fits there; and one that is larger than a node is asked for as it is.
    assert pod_groups([need(8, 0.5, 1)], HOSTS.model_copy(update={"gpus_per_pod": 4}), None) == (
        fixed("learner", ResourceAmount(4, 4, 48), 2),
    )
    assert pod_groups([need(2, 1, 5)], HOSTS, None) == (fixed("learner", ResourceAmount(5, 5, 60), 2),)
    assert pod_groups([need(1, 1, 16)], HOSTS, None) == (fixed("learner", ResourceAmount(16, 16, 192), 1),)


def test_workers_that_ask_for_fractions_share_cpus_and_gpus() -> None:
    assert pod_groups([need(5, 1 / 3, 0)], HOSTS, None) == (fixed("learner", ResourceAmount(2, 0, 5), 1),)
    # 16 CPUs hold 32 of half a CPU.
    assert pod_groups([need(33, 0.5, 0)], HOSTS, None) == (
        fixed("learner", ResourceAmount(16, 0, 32), 1),
        fixed("learner-rest", ResourceAmount(1, 0, 1), 1),
    )
    # Of 0.4 GPUs 2 share one, since none has parts of two: 5 need 3 GPUs, where 2 would have their sum.
    assert pod_groups([need(5, 0.1, 0.4)], HOSTS, None) == (fixed("learner", ResourceAmount(3, 3, 36), 1),)


def test_workers_that_come_and_go_have_pods_of_their_own() -> None:
    scale = AutoscaleSettings(min_workers=2, max_workers=9)
    rollout = replace(need(4, 2, 1), role="rollout")
    assert pod_groups([rollout], HOSTS, scale) == (
        PodGroup("rollout", ResourceAmount(2, 1, 12), replicas=4, min_replicas=2, max_replicas=9),
    )
    # Two share a CPU: 4 are 2 pods, and 9 are 5.
    halves = replace(need(4, 0.5, 0), role="rollout")
    assert pod_groups([halves], HOSTS, scale) == (
        PodGroup("rollout", ResourceAmount(1, 0, 2), replicas=2, min_replicas=1, max_replicas=5),
    )
    # A number outside of the bounds, which the run leaves with its first step.
    many = replace(need(12, 2, 1), role="rollout")
    (group,) = pod_groups([many], HOSTS, scale)
    assert (group.min_replicas, group.replicas, group.max_replicas) == (2, 12, 12)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["learner.num_gpus=1", "rollout.num_workers=2", "rollout.num_gpus=1", "rollout.num_cpus=4"],
        ["learner.num_workers=8", "rollout.num_workers=5", "rollout.num_gpus=0.3", "reward.num_workers=3"],
        ["rollout.num_gpus=1", "rollout.tensor_parallel=4", "learner.num_cpus=2.5", "gold_reward.model=/models/j"],
        ["learner.num_workers=16", "learner.num_gpus=1", "learner.memory_gib=60", "rollout.autoscale.max_workers=4"],
    ],
)
def test_the_pods_hold_the_run(overrides: list[str]) -> None:
    run = online(*overrides)
    needs = resource_needs(run)
    pods = [
        Host(f"{group.name}-{number}", f"{group.name}-{number}", group.size)
        for group in pod_groups(needs, run.cluster.kuberay, autoscale_of(run))
        for number in range(group.replicas)
    ]
    assert plan(needs, pods).fits
