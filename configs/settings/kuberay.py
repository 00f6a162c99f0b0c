"""What a run's pods ask of Kubernetes, for `plumbob submit --render kuberay`."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from plumbob.configs.base import Settings

TAINT = re.compile(r"([\w./-]+)(?:=([\w.-]*))?(?::(NoSchedule|PreferNoSchedule|NoExecute))?")
"""Key, value and effect, as `kubectl taint` has them."""

VOLUME = re.compile(r"(pvc|secret|configmap)/([a-z0-9]([-a-z0-9.]*[a-z0-9])?)|emptydir")
"""Kind and name of the source, as `kubectl get` has them; an empty folder has no name."""


def _taint(text: str) -> str:
    if not TAINT.fullmatch(text):
        raise PydanticCustomError("taint", "a taint such as nvidia.com/gpu, gpu:NoSchedule or pool=train:NoSchedule")
    return text


def _volume(text: str) -> str:
    if not VOLUME.fullmatch(text):
        raise PydanticCustomError("volume", "pvc/NAME, secret/NAME, configmap/NAME or emptydir")
    return text


def _object_name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", text):
        raise PydanticCustomError("object_name", "a name of Kubernetes: lower-case letters, digits, '-' and '.'")
    return text


def _absolute(text: str) -> str:
    if not text.startswith("/"):
        raise PydanticCustomError("absolute", "an absolute path to mount at")
    return text


ObjectName = Annotated[str, AfterValidator(_object_name)]
Taint = Annotated[str, AfterValidator(_taint)]
VolumeSource = Annotated[str, AfterValidator(_volume)]
MountPath = Annotated[str, AfterValidator(_absolute)]

WholeSeconds = Annotated[int, Field(ge=0, le=2**31 - 1)]
UserId = Annotated[int, Field(ge=0, le=2**31 - 1)]


class KubeRaySettings(Settings):
    """Pods as large as hosts, and what else a cluster wants to know of them. Nothing else reads it."""

    gpus_per_pod: Annotated[int, Field(gt=0, le=1024)] = 8
    """GPUs of one node: a pod holds as many workers of its role as have them, so that ranks of one host share a pod."""
    cpus_per_pod: Annotated[int, Field(gt=0, le=4096)] = 16
    """CPUs of one node that a pod without GPUs may have."""
    gib_per_gpu: Annotated[float, Field(ge=0, le=10_000)] = 12.0
    """Main memory that a pod has for each GPU, where its workers' `memory_gib` is less."""
    limits: bool = False
    """Limit each pod to the CPUs and the memory that it asks for; one that takes more memory is ended."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes for all pods."""
    gpu_node_selector: dict[str, str] = Field(default_factory=dict)
    """Further ones for pods with GPUs."""
    tolerations: tuple[Taint, ...] = ()
    """Taints that all pods tolerate: KEY, KEY:EFFECT or KEY=VALUE:EFFECT."""
    gpu_tolerations: tuple[Taint, ...] = ("nvidia.com/gpu:NoSchedule",)
    """Further ones for pods with GPUs."""
    image_pull_secrets: tuple[ObjectName, ...] = ()
    """Secrets by which the image may be pulled."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment of all of Ray's containers, such as NCCL_SOCKET_IFNAME. Its values are
    readable in the manifest, which is no place for secrets."""
    env_from_secrets: tuple[ObjectName, ...] = ()
    """Secrets whose keys become environment, such as HF_TOKEN."""
    volumes: dict[MountPath, VolumeSource] = Field(default_factory=dict)
    """Path -> what is mounted there on all pods, beside the claim: pvc/NAME, secret/NAME, configmap/NAME, emptydir."""
    run_as_user: UserId | None = None
    """Number of the user whose processes all pods are; None leaves it to the image."""
    run_as_group: UserId | None = None
    """Number of that user's group."""
    fs_group: UserId | None = None
    """Group to which mounted volumes belong, so that a user who is not root can write to the claim."""
    network_policy: bool = True
    """A NetworkPolicy by which nobody but the run's own pods reaches ports of theirs that ask for no token."""
    metrics_from: dict[str, str] = Field(default_factory=dict)
    """Labels of the namespaces that may read Ray's metrics all the same, such as kubernetes.io/metadata.name:
    monitoring."""
    queue: ObjectName | None = None
    """Kueue's local queue."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Of the RayJob, such as kueue.x-k8s.io/priority-class."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Of the RayJob too."""
    backoff_limit: Annotated[int, Field(ge=0, le=1000)] = 2
    """How often a run that failed gets a new cluster, on which it resumes."""
    active_deadline_s: Annotated[int, Field(gt=0, le=2**31 - 1)] | None = None
    """After this long KubeRay ends the job, whatever it is doing."""
    ttl_after_finished_s: WholeSeconds = 0
    """How long the cluster is kept after the run has ended, to look at it."""
    overlay: dict[str, Any] = Field(default_factory=dict)
    """Merged into the RayJob last: groups by key, lists of containers, volumes, env and worker groups by name; null
    removes a key, and every other value replaces what was there."""
