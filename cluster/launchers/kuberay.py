"""Writes a run as a KubeRay RayJob, with pods as large as hosts and what `cluster.kuberay` says of them."""

import math
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import yaml

from plumbob.cluster.launchers.job_files import CONFIG_FILE, JOIN_WAIT_S, as_yaml, for_cluster
from plumbob.cluster.launchers.kubernetes_objects import (
    Claim,
    ConfigMap,
    ConfigMapSource,
    Container,
    EmptyFolder,
    EnvSource,
    EnvVar,
    HeadGroup,
    IngressRule,
    LabelSelector,
    Metadata,
    NetworkPolicy,
    ObjectReference,
    Peer,
    PodLabels,
    PodSecurity,
    PodSpec,
    PodTemplate,
    PolicySpec,
    PortNumber,
    RayCluster,
    RayJob,
    RayJobSpec,
    Resources,
    SecretSource,
    Toleration,
    Volume,
    VolumeMount,
    WorkerGroup,
    as_dict,
    merged,
)
from plumbob.cluster.launchers.launcher import LauncherOption
from plumbob.cluster.launchers.pod_groups import PodGroup, pod_groups
from plumbob.cluster.resources import ResourceAmount, ResourceNeed, resource_needs
from plumbob.configs.runs import AnyRun, OnlineRun, PipelineRun
from plumbob.configs.settings.kuberay import TAINT, KubeRaySettings
from plumbob.configs.settings.workers import AutoscaleSettings
from plumbob.core.errors import UserError

NAME = "kuberay"
OPTIONS = (
    LauncherOption("--image", "the container image, with Plumbob in it", "IMAGE"),
    LauncherOption("--claim", "the PersistentVolumeClaim for storage.path", "NAME"),
)

RUN_NAME = re.compile(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?")
"""A DNS label, and short enough for the names that KubeRay makes of it (47 characters)."""

GPU = "nvidia.com/gpu"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
RUN_LABEL = "plumbob-run"
"""Of all pods of a run's Ray, with its name."""
WITH_TOKEN = (8265, 10001)
"""Ports of the head that ask for the token: dashboard and jobs, which KubeRay itself asks, and Ray's client."""
METRICS_PORT = 8080
"""KubeRay's own, on every pod; it asks for no token."""
CONFIG_FOLDER = "/etc/plumbob"
SCRIPT = "run.sh"
SCRIPT_TEXT = f"""\
# KubeRay starts again what ends with another status than 0, and a run that a person stopped (130) is to stay so.
plumbob run {CONFIG_FOLDER}/{CONFIG_FILE} --resume
status=$?
[ $status = 130 ] || exit $status
"""
"""What the job runs on the head. In a file, as KubeRay and Ray pass a command through three shells."""
HEAD = ResourceAmount(cpus=2, gpus=0, gib=5)
"""What the head asks of its host for the driver; no worker runs there."""
OBJECT_STORE_GIB = 2
"""Of each pod: what Ray keeps in shared memory, such as published adapters and rollouts; more goes to the disk."""
RAY_GIB = 1
"""Of each pod: Ray's own processes."""
SUBMITTER = Resources(requests={"cpu": "500m", "memory": "200Mi"}, limits={"cpu": "1", "memory": "1Gi"})
"""KubeRay's own figures for the pod that hands the job to the head."""


def render(config: AnyRun, options: Mapping[str, Any]) -> str:
    """The manifest of a run, for --image and --claim and the version of Ray that is installed here."""
    image, claim = options["image"], options["claim"]
    if not (image and claim):
        raise UserError(
            "--render kuberay: expected --image IMAGE, which has Plumbob in it, and --claim NAME, the "
            "PersistentVolumeClaim that becomes storage.path"
        )
    sent = for_cluster(config, JOIN_WAIT_S)
    return manifest(sent, resource_needs(sent), image, claim, version("ray"))


def manifest(config: AnyRun, needs: Sequence[ResourceNeed], image: str, claim: str, ray_version: str) -> str:
    """A ConfigMap with the configuration and its script, who may reach its pods, and the RayJob that runs them.

    Made again it resumes the run.

    Args:
        config: as `cluster.launchers.job_files.for_cluster` gives it.
        image: has Plumbob and this version of Ray installed.
        claim: the PersistentVolumeClaim that is mounted at `storage.path` on every pod.

    Raises:
        UserError: Kubernetes would not take the run's name, or Kueue its autoscaling.
    """
    _check_is_taken(config)
    kuberay, autoscale = config.cluster.kuberay, autoscale_of(config)
    given = ConfigMap(
        metadata=Metadata(name=f"{config.name}-config"), data={CONFIG_FILE: as_yaml(config), SCRIPT: SCRIPT_TEXT}
    )
    pods = Pods(image, config.storage.path, claim, kuberay, config.name)
    cluster = RayCluster(
        ray_version=ray_version,
        enable_in_tree_autoscaling=None if autoscale is None else True,
        head_group_spec=HeadGroup(
            ray_start_params=start_params(ResourceAmount(0, 0, 0)), template=pods.head(given.metadata.name)
        ),
        worker_group_specs=tuple(
            WorkerGroup(
                group_name=group.name,
                replicas=group.replicas,
                min_replicas=group.min_replicas,
                max_replicas=group.max_replicas,
                ray_start_params=start_params(group.size),
                template=pods.worker(group),
            )
            for group in pod_groups(needs, kuberay, autoscale)
        ),
    )
    labels = kuberay.labels | ({} if kuberay.queue is None else {QUEUE_LABEL: kuberay.queue})
    job = RayJob(
        metadata=Metadata(name=config.name, labels=labels or None, annotations=kuberay.annotations or None),
        spec=RayJobSpec(
            entrypoint=f"sh {CONFIG_FOLDER}/{SCRIPT}",
            backoff_limit=kuberay.backoff_limit,
            active_deadline_seconds=kuberay.active_deadline_s,
            ttl_seconds_after_finished=kuberay.ttl_after_finished_s,
            submitter_pod_template=pods.submitter(),
            ray_cluster_spec=cluster,
        ),
    )
    policies = [as_dict(network_policy(config.name, kuberay.metrics_from))] if kuberay.network_policy else []
    documents = [as_dict(given), *policies, merged(as_dict(job), kuberay.overlay)]
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _check_is_taken(config: AnyRun) -> None:
    if not RUN_NAME.fullmatch(config.name):
        raise UserError(
            f"name={config.name}: Kubernetes takes up to 47 lower-case letters, digits and '-', a letter first: "
            f"give another name="
        )
    queue = config.cluster.kuberay.queue
    if queue is not None and autoscale_of(config) is not None:
        raise UserError(
            f"cluster.kuberay.queue={queue}: Kueue admits a job of fixed size alone, and rollout.autoscale "
            f"changes it: leave one of them out"
        )


def network_policy(name: str, metrics_from: Mapping[str, str]) -> NetworkPolicy:
    """Ray listens on every address of a pod, and some ports ask for no token: its own pods alone reach all of them.

    Args:
        name: of the run.
        metrics_from: labels of the namespaces that may read the metrics; none may where there are no labels.
    """
    own = LabelSelector(match_labels={RUN_LABEL: name})
    rules = [
        IngressRule(from_=(Peer(pod_selector=own),)),
        IngressRule(ports=tuple(PortNumber(port=port) for port in WITH_TOKEN)),
    ]
    if metrics_from:
        readers = Peer(namespace_selector=LabelSelector(match_labels=dict(metrics_from)))
        rules.append(IngressRule(from_=(readers,), ports=(PortNumber(port=METRICS_PORT),)))
    return NetworkPolicy(metadata=Metadata(name=name), spec=PolicySpec(pod_selector=own, ingress=tuple(rules)))


def autoscale_of(config: AnyRun) -> AutoscaleSettings | None:
    """Of the run's rollout workers: only online steps change their number."""
    match config:
        case OnlineRun() | PipelineRun():
            return config.rollout.autoscale
        case _:
            return None


def start_params(size: ResourceAmount) -> dict[str, str]:
    """Options of `ray start`. Without them Ray would take what it sees: all CPUs and all memory of the host."""
    of_workers = {"memory": str(int(size.gib * 2**30))} if size.gib else {}
    store = {"object-store-memory": str(OBJECT_STORE_GIB * 2**30)}
    return {"num-cpus": f"{size.cpus:g}", "num-gpus": f"{size.gpus:g}"} | of_workers | store


class Pods:
    """The pods of one run.

    Args:
        path: where the claim is mounted.
        name: of the run.
    """

    def __init__(self, image: str, path: str, claim: str, kuberay: KubeRaySettings, name: str) -> None:
        self._image, self._kuberay, self._name = image, kuberay, name
        storage = Volume(name="storage", persistent_volume_claim=Claim(claim_name=claim))
        further = {mount: volume_of(f"volume-{n}", source) for n, (mount, source) in enumerate(kuberay.volumes.items())}
        self._volumes = {path: storage} | further

    def head(self, config_map: str) -> PodTemplate:
        settings = Volume(name="config", config_map=ConfigMapSource(name=config_map))
        return self._ray_pod("ray-head", HEAD, self._volumes | {CONFIG_FOLDER: settings})

    def worker(self, group: PodGroup) -> PodTemplate:
        return self._ray_pod("ray-worker", group.size, self._volumes)

    def submitter(self) -> PodTemplate:
        """The pod that hands the job to the head. KubeRay's own would have neither pull secrets nor tolerations."""
        container = Container(name="ray-job-submitter", image=self._image, resources=SUBMITTER)
        return PodTemplate(
            spec=self._spec(container, {}, has_gpus=False).model_copy(update={"restart_policy": "Never"})
        )

    def _ray_pod(self, name: str, size: ResourceAmount, volumes: Mapping[str, Volume]) -> PodTemplate:
        container = Container(
            name=name,
            image=self._image,
            env=tuple(EnvVar(name=key, value=value) for key, value in self._kuberay.env.items()) or None,
            env_from=tuple(
                EnvSource(secret_ref=ObjectReference(name=secret)) for secret in self._kuberay.env_from_secrets
            )
            or None,
            resources=self._resources(size),
            volume_mounts=tuple(VolumeMount(name=volume.name, mount_path=path) for path, volume in volumes.items()),
        )
        spec = self._spec(container, volumes, has_gpus=size.gpus > 0)
        return PodTemplate(metadata=PodLabels(labels={RUN_LABEL: self._name}), spec=spec)

    def _resources(self, size: ResourceAmount) -> Resources:
        mib = math.ceil((size.gib + OBJECT_STORE_GIB + RAY_GIB) * 1024)
        asked = {"cpu": f"{size.cpus:g}", "memory": f"{mib}Mi"}
        gpus = {GPU: f"{size.gpus:g}"} if size.gpus else {}
        limits = (asked if self._kuberay.limits else {}) | gpus
        return Resources(requests=asked, limits=limits or None)

    def _spec(self, container: Container, volumes: Mapping[str, Volume], has_gpus: bool) -> PodSpec:
        kuberay = self._kuberay
        selector = kuberay.node_selector | (kuberay.gpu_node_selector if has_gpus else {})
        taints = (*kuberay.tolerations, *(kuberay.gpu_tolerations if has_gpus else ()))
        security = PodSecurity(
            run_as_user=kuberay.run_as_user, run_as_group=kuberay.run_as_group, fs_group=kuberay.fs_group
        )
        return PodSpec(
            containers=(container,),
            volumes=tuple(volumes.values()) or None,
            node_selector=selector or None,
            tolerations=tuple(map(toleration, taints)) or None,
            image_pull_secrets=tuple(ObjectReference(name=name) for name in kuberay.image_pull_secrets) or None,
            security_context=None if security == PodSecurity() else security,
        )


def toleration(taint: str) -> Toleration:
    """Of a taint as `kubectl taint` has it; without a value any is tolerated, without an effect all are."""
    found = TAINT.fullmatch(taint)
    assert found is not None
    key, value, effect = found.groups()
    return Toleration(key=key, operator="Exists" if value is None else "Equal", value=value, effect=effect)


def volume_of(name: str, source: str) -> Volume:
    """Of pvc/NAME, secret/NAME, configmap/NAME or emptydir."""
    kind, _, of = source.partition("/")
    match kind:
        case "pvc":
            return Volume(name=name, persistent_volume_claim=Claim(claim_name=of))
        case "secret":
            return Volume(name=name, secret=SecretSource(secret_name=of))
        case "configmap":
            return Volume(name=name, config_map=ConfigMapSource(name=of))
        case _:
            return Volume(name=name, empty_dir=EmptyFolder())


class _Dumper(yaml.SafeDumper):
    """Text of several lines as a block, so that a person can read it."""

    def ignore_aliases(self, data: object) -> bool:
        return True


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)
