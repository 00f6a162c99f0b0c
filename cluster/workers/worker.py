"""What all Ray actors of a run have in common (Worker): shells around a learner, a sampler or a scorer.

vLLM and DeepSpeed are imported inside the methods: the driver, which also reads this file, needs neither.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import ray

from plumbob.cluster.workers.same_versions import check_packages, installed
from plumbob.cluster.workers.shared_storage import check_folders, check_shared, check_sources
from plumbob.core.host_network import listen_on
from plumbob.core.stamped_lines import sent_to

NO_SOURCES: Mapping[str, str] = MappingProxyType({})


class Worker:
    """What all have in common: a log, and that their host has the driver's packages, storage, models and
    functions.

        Args:
            packages: the driver's, as `cluster.workers.same_versions.installed` gives them.
            probe: the driver's, in the folder of the log (`cluster.workers.shared_storage.StorageProbe`).
    """

    def __init__(self, log: Path, packages: Mapping[str, str], probe: Path) -> None:
        self._name, self._packages = log.stem, packages
        listen_on(ray.util.get_node_ip_address())
        self._storage_error: OSError | None = None
        try:
            probe.read_bytes()
            sys.stdout = sys.stderr = sent_to(log)
        except OSError as error:
            self._storage_error = error

    def _check_host(self, models: Iterable[str | None] = (), sources: Mapping[str, str] = NO_SOURCES) -> None:
        """Called before anything is opened, not when the actor starts: there Ray would make a death of the error."""
        host = ray.util.get_node_ip_address()
        check_packages(self._name, host, installed(), self._packages)
        check_shared(self._name, host, self._storage_error)
        check_folders(self._name, host, models)
        check_sources(self._name, host, sources)
