"""Writes a run as a KubeRay RayJob: typed models of the fields of `ray.io/v1` that are emitted, and no others."""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from plumbob.cluster.launchers.job_files import CONFIG_FILE, JOIN_WAIT_S, as_yaml, for_cluster
from plumbob.cluster.launchers.launcher import LauncherOption
from plumbob.cluster.placement import TOLERANCE
from plumbob.cluster.resources import ResourceAmount, ResourceNeed, resource_needs, resources_of
from plumbob.configs.runs import AnyRun
from plumbob.core.errors import UserError

NAME = "kuberay"
OPTIONS = (
    LauncherOption("--image", "the container image, with Plumbob in it", "IMAGE"),
    LauncherOption("--claim", "the PersistentVolumeClaim for storage.path", "NAME"),
)

RUN_NAME = re.compile(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?")
"""A DNS label, and short enough for the names that KubeRay makes of it (47 characters)."""

GPU = "nvidia.com/gpu"
CONFIG_FOLDER = "/etc/plumbob"
HEAD = ResourceAmount(cpus=2, gpus=0, gib=8)
"""What the head asks of its host: the driver and Ray's own processes; no worker runs there."""
OBJECT_STORE_GIB = 2
"""Of each pod: what Ray keeps in shared memory, such as published adapters and rollouts; more goes to the disk."""


class _Fields(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True)


class Metadata(_Fields):
    name: str


class Claim(_Fields):
    claim_name: str


class ConfigMapSource(_Fields):
    name: str


class Volume(_Fields):
    """Either of the two sources."""

    name: str
    persistent_volume_claim: Claim | None = None
    config_map: ConfigMapSource | None = None


class VolumeMount(_Fields):
    name: str
    mount_path: str


class Resources(_Fields):
    """By Kubernetes' names of resources; GPUs must stand in the limits."""

    requests: dict[str, str]
    limits: dict[str, str] | None = None


class Container(_Fields):
    name: str
    image: str
    resources: Resources
    volume_mounts: tuple[VolumeMount, ...]


class PodSpec(_Fields):
    containers: tuple[Container, ...]
    volumes: tuple[Volume, ...]


class PodTemplate(_Fields):
    spec: PodSpec


class HeadGroup(_Fields):
    ray_start_params: dict[str, str]
    template: PodTemplate


class WorkerGroup(_Fields):
    group_name: str
    replicas: int
    min_replicas: int
    max_replicas: int
    ray_start_params: dict[str, str]
    template: PodTemplate


class AuthOptions(_Fields):
    """KubeRay makes a Secret with the token and gives it to every pod."""

    mode: Literal["token"] = "token"


class RayCluster(_Fields):
    ray_version: str
    auth_options: AuthOptions = AuthOptions()
    head_group_spec: HeadGroup
    worker_group_specs: tuple[WorkerGroup, ...]


class RayJobSpec(_Fields):
    entrypoint: str
    shutdown_after_job_finishes: Literal[True] = True
    ray_cluster_spec: RayCluster


class RayJob(_Fields):
    api_version: Literal["ray.io/v1"] = "ray.io/v1"
    kind: Literal["RayJob"] = "RayJob"
    metadata: Metadata
    spec: RayJobSpec


class ConfigMap(_Fields):
    api_version: Literal["v1"] = "v1"
    kind: Literal["ConfigMap"] = "ConfigMap"
    metadata: Metadata
    data: dict[str, str]


def render(config: AnyRun, options: Mapping[str, Any]) -> str:
    """The manifest of a run, for --image and --claim and the Ray that is installed here."""
    image, claim = options["image"], options["claim"]
    if not (image and claim):
        raise UserError(
            "--render kuberay: expected --image IMAGE, which has Plumbob in it, and --claim NAME, the "
            "PersistentVolumeClaim that becomes storage.path"
        )
    sent = for_cluster(config, JOIN_WAIT_S)
    return manifest(sent, resource_needs(sent), image, claim, version("ray"))


def manifest(config: AnyRun, needs: Sequence[ResourceNeed], image: str, claim: str, ray_version: str) -> str:
    """A ConfigMap with the configuration and the RayJob that runs it, as YAML. One that is made again resumes the run.

    Args:
        config: as `cluster.launchers.job_files.for_cluster` gives it.
        image: has Plumbob and this version of Ray installed.
        claim: the PersistentVolumeClaim that is mounted at `storage.path` on every pod.

    Raises:
        UserError: Kubernetes would not take the run's name.
    """
    if not RUN_NAME.fullmatch(config.name):
        raise UserError(
            f"name={config.name}: Kubernetes takes up to 47 lower-case letters, digits and '-', a letter first: "
            f"give another name="
        )
    given = ConfigMap(metadata=Metadata(name=f"{config.name}-config"), data={CONFIG_FILE: as_yaml(config)})
    storage = Volume(name="storage", persistent_volume_claim=Claim(claim_name=claim))
    settings = Volume(name="config", config_map=ConfigMapSource(name=given.metadata.name))
    mounts = {"storage": config.storage.path, "config": CONFIG_FOLDER}
    cluster = RayCluster(
        ray_version=ray_version,
        head_group_spec=HeadGroup(
            ray_start_params=start_params(ResourceAmount(0, 0, 0)),
            template=pod("head", image, HEAD, (storage, settings), mounts),
        ),
        worker_group_specs=tuple(
            WorkerGroup(
                group_name=name,
                replicas=count,
                min_replicas=count,
                max_replicas=count,
                ray_start_params=start_params(size),
                template=pod("worker", image, size, (storage,), mounts),
            )
            for name, (size, count) in host_groups(needs).items()
        ),
    )
    job = RayJob(
        metadata=Metadata(name=config.name),
        spec=RayJobSpec(entrypoint=f"plumbob run {CONFIG_FOLDER}/{CONFIG_FILE} --resume", ray_cluster_spec=cluster),
    )
    return yaml.dump_all([as_dict(given), as_dict(job)], Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def host_groups(needs: Sequence[ResourceNeed]) -> dict[str, tuple[ResourceAmount, int]]:
    """Name -> what each pod of the group has, and how many there are: one group for each size of worker.

    A pod has whole CPUs and GPUs, and as many workers of its size as these hold.
    """
    counts: defaultdict[ResourceAmount, int] = defaultdict(int)
    for need in needs:
        counts[resources_of(need)] += need.count
    groups: dict[str, tuple[ResourceAmount, int]] = {}
    for number, (worker, count) in enumerate(counts.items(), start=1):
        cpus, gpus = max(math.ceil(worker.cpus), 1), math.ceil(worker.gpus)
        held = min(int(has / asks + TOLERANCE) for has, asks in ((cpus, worker.cpus), (gpus, worker.gpus)) if asks)
        groups[f"workers-{number}"] = (ResourceAmount(cpus, gpus, held * worker.gib), math.ceil(count / held))
    return groups


def start_params(size: ResourceAmount) -> dict[str, str]:
    """Options of `ray start`. Without them Ray would take what it sees: all CPUs of the host."""
    store = OBJECT_STORE_GIB * 2**30
    return {"num-cpus": f"{size.cpus:g}", "num-gpus": f"{size.gpus:g}", "object-store-memory": str(store)}


def pod(
    name: str, image: str, size: ResourceAmount, volumes: tuple[Volume, ...], mounts: dict[str, str]
) -> PodTemplate:
    """One container. Memory is asked for and not limited: Plumbob's figures place workers, and bound nothing."""
    container = Container(
        name=f"ray-{name}",
        image=image,
        resources=Resources(
            requests={"cpu": f"{size.cpus:g}", "memory": f"{math.ceil((size.gib + OBJECT_STORE_GIB) * 1024)}Mi"},
            limits={GPU: f"{size.gpus:g}"} if size.gpus else None,
        ),
        volume_mounts=tuple(VolumeMount(name=volume.name, mount_path=mounts[volume.name]) for volume in volumes),
    )
    return PodTemplate(spec=PodSpec(containers=(container,), volumes=volumes))


def as_dict(document: BaseModel) -> dict[str, Any]:
    return document.model_dump(mode="json", by_alias=True, exclude_none=True)


class _Dumper(yaml.SafeDumper):
    """Text of several lines as a block, so that a person can read it."""

    def ignore_aliases(self, data: object) -> bool:
        return True


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)
