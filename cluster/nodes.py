"""Hosts as Ray sees them."""

import os
from collections.abc import Collection

import ray
from ray._private.state import available_resources_per_node, state
from ray._private.utils import estimate_available_memory, get_system_memory

from plumbob.cluster.resources import Host, ResourceAmount
from plumbob.configs.settings.workers import ClusterSettings
from plumbob.core.errors import UserError

GIB = 2**30


def hosts(free: bool) -> tuple[Host, ...]:
    """The living hosts of the cluster that was joined, by address: all that they have, or what nobody has taken."""
    left = available_resources_per_node()
    nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] in left]
    found = [
        Host(
            node["NodeManagerAddress"],
            node["NodeID"],
            _amount(left[node["NodeID"]] if free else node["Resources"]),
        )
        for node in nodes
    ]
    return tuple(sorted(found, key=lambda host: (host.address, host.node_id)))


def living_nodes() -> set[str]:
    """Ids of the nodes that Ray takes for alive."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def draining_nodes() -> frozenset[str]:
    """Ids of the nodes that Ray was asked to drain: by its autoscaler, a spot notice, or `ray drain-node`."""
    return frozenset(state.get_draining_nodes())


def addresses(node_ids: Collection[str]) -> list[str]:
    """Of nodes, dead or alive."""
    return sorted({node["NodeManagerAddress"] for node in ray.nodes() if node["NodeID"] in node_ids})


def nodes_on(host: str) -> frozenset[str]:
    """Ids of the living nodes on the host of that address or name.

    Raises:
        UserError: there is no such host in the cluster that was joined, or no other.
    """
    alive = [node for node in ray.nodes() if node["Alive"]]
    found = {node["NodeID"] for node in alive if host in (node["NodeManagerAddress"], node["NodeManagerHostname"])}
    if not found:
        known = sorted({f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']})" for node in alive})
        raise UserError(f"{host}: no host of this cluster; it has {', '.join(known)}")
    if len(found) == len(alive):
        raise UserError(f"{host}: it is the only host of this cluster; `plumbob stop` ends a run")
    return frozenset(found)


def this_machine(cluster: ClusterSettings, free: bool = True) -> tuple[Host, ...]:
    """What a private Ray cluster on this machine would have; or with all of its memory, whoever uses it now."""
    import torch

    gib = (available_memory() if free else get_system_memory()) / GIB
    cpus = float(cluster.num_cpus or os.cpu_count() or 1)
    return (Host("this machine", "", ResourceAmount(cpus, float(torch.cuda.device_count()), gib)),)


def available_memory() -> int:
    """Bytes of this machine that nobody has taken: what workers on a private Ray cluster may ask for.

    Ray would keep back 30% for its object store, which holds little more here than the weights of one publish.
    """
    return int(estimate_available_memory())


def _amount(resources: dict[str, float]) -> ResourceAmount:
    return ResourceAmount(resources.get("CPU", 0.0), resources.get("GPU", 0.0), resources.get("memory", 0.0) / GIB)
