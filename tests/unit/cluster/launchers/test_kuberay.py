"""The manifest for KubeRay: names of published fields only, and hosts that hold the run."""

from typing import Any

import pytest
import yaml

from plumbob.cluster.launchers.kuberay import ConfigMap, RayJob, as_dict, host_groups, manifest
from plumbob.cluster.placement import plan
from plumbob.cluster.resources import Host, ResourceAmount, resource_needs
from plumbob.configs.runs import AnyRun
from plumbob.console.cli import main
from plumbob.core.errors import UserError
from tests.support.submitted_run import PPO, need, ppo

ONE_LEARNER_TWO_SAMPLERS = ["learner.num_gpus=1", "rollout.num_workers=2", "rollout.num_gpus=1", "rollout.num_cpus=4"]

# Field names as KubeRay's reference of ray.io/v1 and Kubernetes' reference of core/v1 publish them; `...` ends the
# walk, a list holds what each of its items is.
POD = {
    "spec": {
        "containers": [
            {
                "name": ...,
                "image": ...,
                "resources": {"requests": ..., "limits": ...},
                "volumeMounts": [{"name": ..., "mountPath": ...}],
            }
        ],
        "volumes": [{"name": ..., "persistentVolumeClaim": {"claimName": ...}, "configMap": {"name": ...}}],
    }
}
RAY_JOB = {
    "apiVersion": ...,
    "kind": ...,
    "metadata": {"name": ...},
    "spec": {
        "entrypoint": ...,
        "shutdownAfterJobFinishes": ...,
        "rayClusterSpec": {
            "rayVersion": ...,
            "authOptions": {"mode": ...},
            "headGroupSpec": {"rayStartParams": ..., "template": POD},
            "workerGroupSpecs": [
                {
                    "groupName": ...,
                    "replicas": ...,
                    "minReplicas": ...,
                    "maxReplicas": ...,
                    "rayStartParams": ...,
                    "template": POD,
                }
            ],
        },
    },
}
CONFIG_MAP = {"apiVersion": ..., "kind": ..., "metadata": {"name": ...}, "data": ...}


def documents(run: AnyRun) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ConfigMap and the RayJob, read back from the text."""
    settings, job = yaml.safe_load_all(manifest(run, resource_needs(run), "registry/plumbob:1", "shared", "2.60.0"))
    return settings, job


def unknown_names(document: Any, published: Any, place: str = "") -> list[str]:
    if published is ...:
        return []
    if isinstance(published, list):
        return [name for item in document for name in unknown_names(item, published[0], f"{place}[]")]
    found = [f"{place}.{name}" for name in document if name not in published]
    return found + [
        name
        for key, value in document.items()
        if key in published
        for name in unknown_names(value, published[key], f"{place}.{key}")
    ]


def test_the_text_reads_back_as_what_was_meant_with_published_names_only() -> None:
    settings, job = documents(ppo(*ONE_LEARNER_TWO_SAMPLERS))
    assert as_dict(ConfigMap.model_validate(settings)) == settings
    assert as_dict(RayJob.model_validate(job)) == job
    assert unknown_names(settings, CONFIG_MAP) == [] == unknown_names(job, RAY_JOB)
    misspelt = {**job, "spec": {**job["spec"], "shutdownAfterJobFinished": True}}
    assert unknown_names(misspelt, RAY_JOB) == [".spec.shutdownAfterJobFinished"]
    with pytest.raises(ValueError, match="shutdownAfterJobFinished"):
        RayJob.model_validate(misspelt)


def test_the_job_runs_the_configuration_that_is_mounted_on_the_head() -> None:
    run = ppo()
    settings, job = documents(run)
    cluster = job["spec"]["rayClusterSpec"]
    head = cluster["headGroupSpec"]["template"]["spec"]
    assert (job["metadata"]["name"], cluster["rayVersion"]) == ("align", "2.60.0")
    assert cluster["authOptions"] == {"mode": "token"}
    assert job["spec"]["entrypoint"] == "plumbob run /etc/plumbob/run.yaml --resume"
    assert {"name": "config", "mountPath": "/etc/plumbob"} in head["containers"][0]["volumeMounts"]
    assert {"name": "config", "configMap": {"name": settings["metadata"]["name"]}} in head["volumes"]
    assert list(settings["data"]) == ["run.yaml"]
    assert yaml.safe_load(settings["data"]["run.yaml"]) == run.model_dump(mode="json")
    # No worker runs on the head, whose host asks for no GPU.
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert "limits" not in head["containers"][0]["resources"]


def test_every_pod_sees_the_storage_at_its_path() -> None:
    _, job = documents(ppo())
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["containers"][0]["image"] == "registry/plumbob:1"
        assert {"name": "storage", "mountPath": "/shared/runs"} in pod["containers"][0]["volumeMounts"]
        assert {"name": "storage", "persistentVolumeClaim": {"claimName": "shared"}} in pod["volumes"]


def test_a_group_of_hosts_for_each_size_of_worker() -> None:
    _, job = documents(ppo(*ONE_LEARNER_TWO_SAMPLERS, "learner.memory_gib=6"))
    groups = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    sizes = [
        (g["replicas"], g["rayStartParams"]["num-cpus"], g["rayStartParams"]["num-gpus"],
         g["template"]["spec"]["containers"][0]["resources"])
        for g in groups
    ]  # fmt: skip
    # Memory: of the workers in a pod, and 2 GiB of Ray's object store. The scorer's 0.5 CPUs: a whole one holds two.
    assert sizes == [
        (1, "1", "1", {"requests": {"cpu": "1", "memory": "8192Mi"}, "limits": {"nvidia.com/gpu": "1"}}),
        (2, "4", "1", {"requests": {"cpu": "4", "memory": "3072Mi"}, "limits": {"nvidia.com/gpu": "1"}}),
        (1, "1", "0", {"requests": {"cpu": "1", "memory": "4096Mi"}}),
    ]
    assert all(g["minReplicas"] == g["replicas"] == g["maxReplicas"] for g in groups)


def test_workers_that_ask_for_fractions_share_pods() -> None:
    # 3 of a third of a CPU fill one; 5 need 2 pods. 3 of 0.4 GPUs: 2 fit on one, so 2 pods; the CPU holds those 2 too.
    assert host_groups([need(5, 1 / 3, 0)]) == {"workers-1": (ResourceAmount(1, 0, 3), 2)}
    assert host_groups([need(3, 0.1, 0.4)]) == {"workers-1": (ResourceAmount(1, 1, 2), 2)}
    # Groups of equal workers are one; 2 GPUs for one worker are 2 GPUs.
    assert host_groups([need(1, 1, 2), need(2, 1, 2)]) == {"workers-1": (ResourceAmount(1, 2, 1), 3)}


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ONE_LEARNER_TWO_SAMPLERS,
        ["learner.num_workers=8", "rollout.num_workers=5", "rollout.num_gpus=0.3", "reward.num_workers=3"],
        ["rollout.num_gpus=1", "rollout.tensor_parallel=4", "learner.num_cpus=2.5", "judge.model=/models/j"],
    ],
)
def test_the_pods_hold_the_run(overrides: list[str]) -> None:
    needs = resource_needs(ppo(*overrides))
    pods = [
        Host(f"{name}-{number}", f"{name}-{number}", size)
        for name, (size, count) in host_groups(needs).items()
        for number in range(count)
    ]
    assert plan(needs, pods).fits


@pytest.mark.parametrize("name", ["Align", "my_run", "2nd", "a-", "a" * 48, "a b"])
def test_a_name_that_kubernetes_would_not_take(name: str) -> None:
    run = ppo().model_copy(update={"name": name})
    with pytest.raises(UserError, match=rf"^name={name}: Kubernetes takes up to 47 .*: give another name=$"):
        manifest(run, resource_needs(run), "i", "c", "2.60.0")


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["submit", "ppo", *PPO, "storage.path=/shared/runs", "--render", "kuberay"]
    assert main([*command, "--image", "registry/plumbob:1", "--claim", "shared"]) == 0
    settings, job = yaml.safe_load_all(capsys.readouterr().out)
    assert (settings["kind"], job["kind"]) == ("ConfigMap", "RayJob")
    # Pods join one after another.
    assert yaml.safe_load(settings["data"]["run.yaml"])["cluster"]["wait_s"] == 300
    for options, message in (
        (["--image", "i"], "--render kuberay: expected --image IMAGE"),
        (["--image", "i", "--claim", "c", "--hosts", "2"], "--hosts is for --render slurm only"),
        (["--image", "i", "--claim", "c", "--no-wait"], "--no-wait is for --address only"),
    ):
        assert main([*command, *options]) == 2
        assert capsys.readouterr().err.startswith(f"plumbob: {message}")
