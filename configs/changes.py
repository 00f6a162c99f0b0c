"""What may change when a run goes on: where and how fast it is computed, never what."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from configs.errors import UserError

WORKERS = ("num_workers", "num_threads", "num_cpus", "num_gpus", "memory_gib", "placement")

CHANGEABLE = (
    "cluster.*",
    *(f"{role}.{name}" for role in ("learner", "rollout", "reward", "judge") for name in WORKERS),
    *("learner.zero_stage", "learner.micro_batch_size", "learner.gradient_checkpointing"),
    *("rollout.autoscale", "rollout.autoscale.*", "rollout.tensor_parallel"),
    *("rollout.engine.kv_cache_gib", "rollout.engine.gpu_memory_fraction"),
    *("rollout.engine.max_num_seqs", "rollout.engine.enforce_eager"),
    *("*.keep_checkpoints", "*.save_every"),
)
"""Patterns of dotted keys. What they change in the result is the rounding of sums, at most."""

WORDS = (
    f"cluster.*; {', '.join(WORKERS)} of learner, rollout, reward and judge; learner.zero_stage, micro_batch_size, "
    "gradient_checkpointing; rollout.autoscale, tensor_parallel; rollout.engine.kv_cache_gib, gpu_memory_fraction, "
    "max_num_seqs, enforce_eager; keep_checkpoints and save_every of any stage"
)


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
