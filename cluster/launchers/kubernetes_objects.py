"""Objects of Kubernetes and KubeRay: typed models of the fields that are written, and no others."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class _Fields(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True)


class Metadata(_Fields):
    name: str
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Claim(_Fields):
    claim_name: str


class ConfigMapSource(_Fields):
    name: str


class SecretSource(_Fields):
    secret_name: str


class EmptyFolder(_Fields):
    """On the node's disk, as long as the pod is there."""


class Volume(_Fields):
    """One of the sources."""

    name: str
    persistent_volume_claim: Claim | None = None
    config_map: ConfigMapSource | None = None
    secret: SecretSource | None = None
    empty_dir: EmptyFolder | None = None


class VolumeMount(_Fields):
    name: str
    mount_path: str


class Resources(_Fields):
    """By Kubernetes' names of resources; GPUs must stand in the limits."""

    requests: dict[str, str]
    limits: dict[str, str] | None = None


class EnvVar(_Fields):
    name: str
    value: str


class ObjectReference(_Fields):
    name: str


class EnvSource(_Fields):
    secret_ref: ObjectReference


class Container(_Fields):
    name: str
    image: str
    env: tuple[EnvVar, ...] | None = None
    env_from: tuple[EnvSource, ...] | None = None
    resources: Resources
    volume_mounts: tuple[VolumeMount, ...] | None = None


class Toleration(_Fields):
    key: str
    operator: Literal["Exists", "Equal"]
    value: str | None = None
    effect: str | None = None


class PodSecurity(_Fields):
    run_as_user: int | None = None
    run_as_group: int | None = None
    fs_group: int | None = None


class PodSpec(_Fields):
    containers: tuple[Container, ...]
    volumes: tuple[Volume, ...] | None = None
    node_selector: dict[str, str] | None = None
    tolerations: tuple[Toleration, ...] | None = None
    image_pull_secrets: tuple[ObjectReference, ...] | None = None
    security_context: PodSecurity | None = None
    restart_policy: Literal["Never"] | None = None


class PodLabels(_Fields):
    labels: dict[str, str]


class PodTemplate(_Fields):
    metadata: PodLabels | None = None
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
    enable_in_tree_autoscaling: Literal[True] | None = None
    auth_options: AuthOptions = AuthOptions()
    head_group_spec: HeadGroup
    worker_group_specs: tuple[WorkerGroup, ...]


class RayJobSpec(_Fields):
    entrypoint: str
    backoff_limit: int
    active_deadline_seconds: int | None = None
    shutdown_after_job_finishes: Literal[True] = True
    ttl_seconds_after_finished: int
    submitter_pod_template: PodTemplate
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


class LabelSelector(_Fields):
    match_labels: dict[str, str]


class Peer(_Fields):
    """Pods by their labels in the policy's own namespace, or all of the namespaces that have some labels."""

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None


class PortNumber(_Fields):
    """Of TCP."""

    port: int


class IngressRule(_Fields):
    """From any of the peers, or from anywhere; to any of the ports, or to all."""

    from_: tuple[Peer, ...] | None = Field(None, alias="from")
    ports: tuple[PortNumber, ...] | None = None


class PolicySpec(_Fields):
    """What is in no rule reaches none of the pods."""

    pod_selector: LabelSelector
    policy_types: tuple[Literal["Ingress"]] = ("Ingress",)
    ingress: tuple[IngressRule, ...]


class NetworkPolicy(_Fields):
    api_version: Literal["networking.k8s.io/v1"] = "networking.k8s.io/v1"
    kind: Literal["NetworkPolicy"] = "NetworkPolicy"
    metadata: Metadata
    spec: PolicySpec


def as_dict(document: BaseModel) -> dict[str, Any]:
    """As Kubernetes reads it; what is None is not there."""
    return document.model_dump(mode="json", by_alias=True, exclude_none=True)


MERGED_BY = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "imagePullSecrets": "name",
    "workerGroupSpecs": "groupName",
}
"""List -> the key by which Kubernetes takes two items for one (strategic merge); all other lists are replaced."""


def merged(document: Any, overlay: Any, name: str = "") -> Any:
    """The document with the overlay on top, as Kubernetes merges a patch; None removes a key.

    Args:
        name: under which the document stands, by which lists are merged.
    """
    key = MERGED_BY.get(name)
    match document, overlay:
        case dict(), dict():
            found = {inner: merged(document.get(inner), value, inner) for inner, value in overlay.items()}
            return {inner: value for inner, value in (document | found).items() if value is not None}
        case None, dict():
            return merged({}, overlay)
        case list(), list() if key is not None and all(isinstance(item, dict) and key in item for item in overlay):
            over = {item[key]: item for item in overlay}
            kept = [merged(item, over.pop(item[key], {})) for item in document]
            return [*kept, *over.values()]
        case _:
            return overlay
