"""The manifest for KubeRay, held to KubeRay's own schemas with nothing in it that they do not know."""

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import ClusterResourceConstraint

from plumbob.cluster.launchers.job_files import for_cluster
from plumbob.cluster.launchers.kuberay import manifest
from plumbob.cluster.launchers.kubernetes_objects import ConfigMap, RayJob, as_dict
from plumbob.cluster.resources import resource_needs
from plumbob.configs.load_run import load_run
from plumbob.configs.runs import AnyRun
from plumbob.console.cli import main
from plumbob.console.exit_codes import FAILED, INTERRUPTED, OK, RESUME_ME, USER_ERROR
from plumbob.core.errors import UserError
from tests.support.kuberay_schemas import VERSIONS, errors_of, schema_of
from tests.support.submitted_run import PPO, online
from tests.test_configs import MUST_BE_GIVEN, PIPELINES

ONE_LEARNER_TWO_SAMPLERS = ["learner.num_gpus=1", "rollout.num_workers=2", "rollout.num_gpus=1", "rollout.num_cpus=4"]

EVERY_SETTING = [
    "cluster.kuberay.limits=true",
    "cluster.kuberay.node_selector={pool: train}",
    "cluster.kuberay.gpu_node_selector={gpu: h100}",
    "cluster.kuberay.tolerations=[pool=train:NoSchedule, spot]",
    "cluster.kuberay.image_pull_secrets=[registry]",
    "cluster.kuberay.env={NCCL_SOCKET_IFNAME: eth0}",
    "cluster.kuberay.env_from_secrets=[hugging-face]",
    "cluster.kuberay.volumes={/data: pvc/texts, /keys: secret/keys, /terms: configmap/terms, /scratch: emptydir}",
    "cluster.kuberay.run_as_user=1000",
    "cluster.kuberay.run_as_group=1000",
    "cluster.kuberay.fs_group=1000",
    "cluster.kuberay.queue=research",
    "cluster.kuberay.labels={kueue.x-k8s.io/priority-class: high}",
    "cluster.kuberay.annotations={owner: us}",
    "cluster.kuberay.backoff_limit=5",
    "cluster.kuberay.active_deadline_s=86400",
    "cluster.kuberay.ttl_after_finished_s=600",
]
AUTOSCALED = ["rollout.num_workers=2", "rollout.num_gpus=1", "rollout.autoscale={min_workers: 1, max_workers: 6}"]


def documents(run: AnyRun) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ConfigMap and the RayJob, read back from the text."""
    settings, *_, job = all_documents(run)
    return settings, job


def all_documents(run: AnyRun) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(manifest(run, resource_needs(run), "registry/plumbob:1", "shared", "2.60.0")))


def group(job: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in job["spec"]["rayClusterSpec"]["workerGroupSpecs"] if one["groupName"] == name)


def pod_specs(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    specs = {one["groupName"]: one["template"]["spec"] for one in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"]["template"]["spec"], **specs}


def test_the_text_reads_back_as_what_was_meant() -> None:
    settings, job = documents(online(*ONE_LEARNER_TWO_SAMPLERS, *EVERY_SETTING))
    assert as_dict(ConfigMap.model_validate(settings)) == settings
    assert as_dict(RayJob.model_validate(job)) == job


def test_the_job_runs_the_configuration_that_is_mounted_on_the_head() -> None:
    run = online()
    settings, job = documents(run)
    cluster = job["spec"]["rayClusterSpec"]
    head = cluster["headGroupSpec"]["template"]["spec"]
    assert (job["metadata"]["name"], cluster["rayVersion"]) == ("align", "2.60.0")
    assert cluster["authOptions"] == {"mode": "token"}
    assert job["spec"]["entrypoint"] == "sh /etc/plumbob/run.sh"
    assert {"name": "config", "mountPath": "/etc/plumbob"} in head["containers"][0]["volumeMounts"]
    assert {"name": "config", "configMap": {"name": settings["metadata"]["name"]}} in head["volumes"]
    assert list(settings["data"]) == ["run.yaml", "run.sh"]
    assert yaml.safe_load(settings["data"]["run.yaml"]) == run.model_dump(mode="json", exclude={"cluster": {"kuberay"}})
    # No worker runs on the head, whose host asks for no GPU.
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert "limits" not in head["containers"][0]["resources"] and "tolerations" not in head
    assert job["spec"]["backoffLimit"] == 2


@pytest.mark.parametrize(
    ("status", "of_job"), [(OK, 0), (FAILED, 1), (USER_ERROR, 2), (RESUME_ME, 75), (INTERRUPTED, 0)]
)
def test_a_run_that_a_person_stopped_is_not_started_again(tmp_path: Path, status: int, of_job: int) -> None:
    """KubeRay retries a job whose entrypoint ends with anything but 0."""
    settings, job = documents(online())
    for name, text in settings["data"].items():
        (tmp_path / name).write_text(text.replace("/etc/plumbob", str(tmp_path)))
    plumbob = tmp_path / "plumbob"
    plumbob.write_text(f'#!/bin/sh\necho "$@"; exit {status}\n')
    plumbob.chmod(0o755)
    # `ray job submit` joins the words that KubeRay's shell gives it, and Ray gives the line to another.
    words = shlex.split(job["spec"]["entrypoint"].replace("/etc/plumbob", str(tmp_path)))
    ended = subprocess.run(
        subprocess.list2cmdline(words),
        shell=True,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (of_job, f"run {tmp_path}/run.yaml --resume\n")


def test_every_pod_sees_the_storage_at_its_path() -> None:
    _, job = documents(online())
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["containers"][0]["image"] == "registry/plumbob:1"
        assert {"name": "storage", "mountPath": "/shared/runs"} in pod["containers"][0]["volumeMounts"]
        assert {"name": "storage", "persistentVolumeClaim": {"claimName": "shared"}} in pod["volumes"]


def test_what_a_pod_asks_for() -> None:
    _, job = documents(online(*ONE_LEARNER_TWO_SAMPLERS, "learner.memory_gib=20"))
    # Memory: of the workers in a pod or 12 GiB a GPU, whichever is more, and 3 GiB for Ray. Ray is told the first part.
    asked = {
        one["groupName"]: (one["rayStartParams"], one["template"]["spec"]["containers"][0]["resources"])
        for one in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    }
    store = {"object-store-memory": str(2 * 2**30)}
    assert asked == {
        "learner": (
            {"num-cpus": "1", "num-gpus": "1", "memory": str(20 * 2**30), **store},
            {"requests": {"cpu": "1", "memory": f"{23 * 1024}Mi"}, "limits": {"nvidia.com/gpu": "1"}},
        ),
        "rollout": (
            {"num-cpus": "8", "num-gpus": "2", "memory": str(24 * 2**30), **store},
            {"requests": {"cpu": "8", "memory": f"{27 * 1024}Mi"}, "limits": {"nvidia.com/gpu": "2"}},
        ),
        "scorer": (
            {"num-cpus": "1", "num-gpus": "0", "memory": str(2**30), **store},
            {"requests": {"cpu": "1", "memory": f"{4 * 1024}Mi"}},
        ),
    }
    assert "enableInTreeAutoscaling" not in job["spec"]["rayClusterSpec"]


def test_every_setting_is_found_in_the_manifest() -> None:
    _, job = documents(online(*ONE_LEARNER_TWO_SAMPLERS, *EVERY_SETTING))
    assert job["metadata"] == {
        "name": "align",
        "labels": {"kueue.x-k8s.io/priority-class": "high", "kueue.x-k8s.io/queue-name": "research"},
        "annotations": {"owner": "us"},
    }
    spec = job["spec"]
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (5, 86400, 600)
    everywhere = [
        {"key": "pool", "operator": "Equal", "value": "train", "effect": "NoSchedule"},
        {"key": "spot", "operator": "Exists"},
    ]
    for name, pod in {**pod_specs(job), "submitter": spec["submitterPodTemplate"]["spec"]}.items():
        has_gpus = name in ("learner", "rollout")
        gpu_taint = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        assert pod["tolerations"] == everywhere + [gpu_taint] * has_gpus
        assert pod["nodeSelector"] == {"pool": "train"} | ({"gpu": "h100"} if has_gpus else {})
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
        assert pod["securityContext"] == {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000}
    for pod in pod_specs(job).values():
        (container,) = pod["containers"]
        assert container["env"] == [{"name": "NCCL_SOCKET_IFNAME", "value": "eth0"}]
        assert container["envFrom"] == [{"secretRef": {"name": "hugging-face"}}]
        resources = container["resources"]
        assert resources["requests"].items() <= resources["limits"].items()
        mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        sources = {volume.pop("name"): volume for volume in pod["volumes"]}
        assert [sources[mounted[path]] for path in ("/data", "/keys", "/terms", "/scratch")] == [
            {"persistentVolumeClaim": {"claimName": "texts"}},
            {"secret": {"secretName": "keys"}},
            {"configMap": {"name": "terms"}},
            {"emptyDir": {}},
        ]


def test_who_reaches_the_pods() -> None:
    """All of Ray's pods and no others have the label; whoever may speak to the head from elsewhere needs the token."""
    monitoring = "cluster.kuberay.metrics_from={kubernetes.io/metadata.name: monitoring}"
    _, policy, job = all_documents(online(*ONE_LEARNER_TWO_SAMPLERS, monitoring))
    cluster, own = job["spec"]["rayClusterSpec"], {"plumbob-run": "align"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert [one["template"]["metadata"] for one in groups] == [{"labels": own}] * 4
    assert "metadata" not in job["spec"]["submitterPodTemplate"]
    metrics = {
        "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "ports": [{"port": 8080}],
    }
    ours, with_token = {"from": [{"podSelector": {"matchLabels": own}}]}, {"ports": [{"port": 8265}, {"port": 10001}]}
    assert policy == {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "align"},
        "spec": {
            "podSelector": {"matchLabels": own},
            "policyTypes": ["Ingress"],
            "ingress": [ours, with_token, metrics],
        },
    }
    _, closed, _ = all_documents(online(*ONE_LEARNER_TWO_SAMPLERS))
    assert closed["spec"]["ingress"] == [ours, with_token]
    assert len(all_documents(online(*ONE_LEARNER_TWO_SAMPLERS, "cluster.kuberay.network_policy=false"))) == 2


def test_autoscaling_reaches_from_the_fewest_to_the_most_workers() -> None:
    _, job = documents(online(*AUTOSCALED))
    assert job["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"] is True
    rollout = group(job, "rollout")
    assert (rollout["minReplicas"], rollout["replicas"], rollout["maxReplicas"]) == (1, 2, 6)
    assert group(job, "learner")["minReplicas"] == group(job, "learner")["maxReplicas"] == 1
    with pytest.raises(UserError, match=r"^cluster.kuberay.queue=q: Kueue admits .*: leave one of them out$"):
        documents(online(*AUTOSCALED, "cluster.kuberay.queue=q"))


def test_rays_autoscaler_reads_the_manifest_and_starts_a_pod_for_each_worker_that_is_requested() -> None:
    """Ray's own reader of KubeRay's groups and its own scheduler, asked as `Reservations.request_hosts` asks."""
    _, job = documents(online(*AUTOSCALED))
    cluster = {"metadata": {"name": "align", "namespace": "here"}, "spec": job["spec"]["rayClusterSpec"]}
    config = AutoscalingConfig(_derive_autoscaling_config_from_ray_cr(cluster), skip_content_hash=True)

    def started(num_rollout_workers: int) -> dict[str, int]:
        half, gib = {"CPU": 0.5}, {"memory": 2**30}
        bundles = [half | gib] * 2 + [half | gib | {"GPU": 1}] * num_rollout_workers
        requests = ResourceRequestUtil.group_by_count([ResourceRequestUtil.make(bundle) for bundle in bundles])
        request = SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=config.get_node_type_configs(),
            max_num_nodes=config.get_max_num_nodes(),
            cluster_resource_constraints=[ClusterResourceConstraint(resource_requests=requests)],
        )
        return {group.instance_type: group.count for group in ResourceDemandScheduler().schedule(request).to_launch}

    for wanted in (1, 3, 6):
        assert started(wanted) == {"learner": 1, "rollout": wanted, "scorer": 1}


def test_the_overlay_has_the_last_word() -> None:
    over = {
        "spec": {
            "suspend": True,
            "submitterPodTemplate": None,
            "rayClusterSpec": {
                "headGroupSpec": {"template": {"spec": {"containers": [{"name": "ray-head", "image": "other"}]}}},
                "workerGroupSpecs": [{"groupName": "learner", "template": {"spec": {"priorityClassName": "high"}}}],
            },
        }
    }
    _, plain = documents(online(*ONE_LEARNER_TWO_SAMPLERS))
    _, job = documents(online(*ONE_LEARNER_TWO_SAMPLERS, f"cluster.kuberay.overlay={over}".replace("None", "null")))
    assert job["spec"].pop("suspend") is True
    assert pod_specs(job)["learner"].pop("priorityClassName") == "high"
    assert pod_specs(job)["head"]["containers"][0]["image"] == "other"
    pod_specs(job)["head"]["containers"][0]["image"] = "registry/plumbob:1"
    plain["spec"].pop("submitterPodTemplate")
    assert job == plain


@pytest.mark.parametrize("version", VERSIONS)
def test_kuberay_knows_every_field_of_every_manifest(version: str) -> None:
    schema = schema_of(version)
    for overrides in ([], ONE_LEARNER_TWO_SAMPLERS, [*ONE_LEARNER_TWO_SAMPLERS, *EVERY_SETTING], AUTOSCALED):
        assert errors_of(documents(online(*overrides))[1], schema) == []
    for preset, given in {**MUST_BE_GIVEN, **PIPELINES}.items():
        run = for_cluster(load_run(preset, [*given, "storage.path=/shared/runs"]))
        assert errors_of(documents(run)[1], schema) == [], preset


def test_what_kuberay_does_not_know_is_found() -> None:
    _, job = documents(
        online("cluster.kuberay.overlay={spec: {shutdownAfterJobFinished: true, backoffLimit: 3000000000}}")
    )
    head = pod_specs(job)["head"]
    head["containers"][0]["volumeMounts"][0]["mountPoint"] = "/x"
    head["volumes"].append(dict(head["volumes"][0]))
    del group(job, "scorer")["groupName"]
    cluster = "spec.rayClusterSpec"
    assert errors_of(job, schema_of("v1.7.0")) == [
        "spec.backoffLimit: 3000000000 is no int32",
        f"{cluster}.headGroupSpec.template.spec.containers.0.volumeMounts.0: "
        "Additional properties are not allowed ('mountPoint' was unexpected)",
        f"{cluster}.headGroupSpec.template.spec.volumes: two items have the same name",
        f"{cluster}.workerGroupSpecs.2: 'groupName' is a required property",
        "spec: Additional properties are not allowed ('shutdownAfterJobFinished' was unexpected)",
    ]


@pytest.mark.parametrize("name", ["Align", "my_run", "2nd", "a-", "a" * 48, "a b"])
def test_a_name_that_kubernetes_would_not_take(name: str) -> None:
    run = online().model_copy(update={"name": name})
    with pytest.raises(UserError, match=rf"^name={name}: Kubernetes takes up to 47 .*: give another name=$"):
        manifest(run, resource_needs(run), "i", "c", "2.60.0")


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["submit", "ppo", *PPO, "storage.path=/shared/runs", "--render", "kuberay"]
    assert main([*command, "--image", "registry/plumbob:1", "--claim", "shared"]) == 0
    settings, policy, job = yaml.safe_load_all(capsys.readouterr().out)
    assert (settings["kind"], policy["kind"], job["kind"]) == ("ConfigMap", "NetworkPolicy", "RayJob")
    # Pods join one after another.
    sent = yaml.safe_load(settings["data"]["run.yaml"])["cluster"]
    assert sent["wait_s"] == 300 and "kuberay" not in sent
    for options, message in (
        (["--image", "i"], "--render kuberay: expected --image IMAGE"),
        (["--image", "i", "--claim", "c", "--hosts", "2"], "--hosts is for --render slurm only"),
        (["--image", "i", "--claim", "c", "--no-wait"], "--no-wait is for --address only"),
    ):
        assert main([*command, *options]) == 2
        assert capsys.readouterr().err.startswith(f"plumbob: {message}")
