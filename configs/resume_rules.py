"""What may change when a run goes on: where and how fast it is computed, never what."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from plumbob.core.errors import UserError

WORKERS = ("num_workers", "num_threads", "num_cpus", "num_gpus", "memory_gib", "placement")

BY_SECTION = {
    "cluster": ("*",),
    "learner": (*WORKERS, "zero_stage", "micro_batch_size", "gradient_checkpointing"),
    "rollout": (*WORKERS, "tensor_parallel", "autoscale", "autoscale.*"),
    "rollout.engine": ("kv_cache_gib", "gpu_memory_fraction", "max_num_seqs", "enforce_eager"),
    "reward": WORKERS,
    "judge": WORKERS,
    "*": ("keep_checkpoints", "save_every"),
}
"""What they change in the result is the rounding of sums, at most."""

CHANGEABLE = tuple(f"{section}.{name}" for section, names in BY_SECTION.items() for name in names)
"""Patterns of dotted keys."""

WORDS = "; ".join(f"{section}.({', '.join(names)})" for section, names in BY_SECTION.items())


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Dotted key -> [value before, value after] where they differ; None stands for a key that one side lacks."""
    old, new = flat(before), flat(after)
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return {key: [old.get(key), new.get(key)] for key in keys}


def check_changes(changed: Mapping[str, Any]) -> None:
    """Raises UserError when one of the keys is not of those that may change."""
    refused = [key for key in changed if not any(fnmatchcase(key, pattern) for pattern in CHANGEABLE)]
    if refused:
        raise UserError(
            f"{', '.join(refused)}: cannot change when a run goes on, as that would change what it computes; begin a "
            f"new run for it. These may change: {WORDS}"
        )


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key; a list is one value."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[f"{prefix}{name}"] = value
    return result
