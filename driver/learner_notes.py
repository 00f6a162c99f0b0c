"""Notes on a run's learners before they start: settings that have no effect where they are (`learner_notes`)."""

from collections.abc import Mapping
from typing import Any

from plumbob.configs.runs import AnyRun
from plumbob.configs.settings.models import PolicySettings
from plumbob.configs.settings.tuning.adapters import AdapterTuning
from plumbob.configs.settings.workers import LearnerSettings
from plumbob.models.resolution import read_adapter_config, resolve_model

PEFT_NAMES = {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "targets": "target_modules"}
"""What PEFT's config calls settings of a tuning, where that is another name."""


def learner_notes(config: AnyRun) -> tuple[str, ...]:
    policy = getattr(config, "policy", None)
    of_tuning = _own_settings(policy) if isinstance(policy, PolicySettings) else ()
    return of_tuning + _of_memory(config)


def _own_settings(policy: PolicySettings) -> tuple[str, ...]:
    """An adapter is trained further as what it is, whatever a new one would be."""
    adapter, tuning = resolve_model(policy.ref).adapter, policy.tuning
    if adapter is None or not isinstance(tuning, AdapterTuning):
        return ()
    own = read_adapter_config(adapter)
    given = tuning.model_dump(include=tuning.model_fields_set - {"kind"})
    unused = [f"{name}={value}" for name, value in given.items() if not _is_its_own(own, name, value)]
    if not unused:
        return ()
    return (
        f"{policy.ref}: is an adapter, which is trained further as what it is; of a new one would be, and have no "
        f"effect: policy.tuning's {', '.join(unused)}",
    )


def _is_its_own(own: Mapping[str, Any], name: str, value: Any) -> bool:
    """Whether an adapter's config says the same."""
    found = own.get(PEFT_NAMES.get(name, name))
    if isinstance(value, tuple) and isinstance(found, list):
        return sorted(value) == sorted(found)
    return bool(found == value) or not (found or value)


def _of_memory(config: AnyRun) -> tuple[str, ...]:
    """On CPUs there is no other memory to move anything to or from."""
    learner = config.learner
    if not isinstance(learner, LearnerSettings) or learner.num_gpus:
        return ()
    notes = []
    if learner.optimizer == "paged_adamw_8bit":
        notes.append("learner.optimizer=paged_adamw_8bit: on CPUs nothing is paged, and it is adamw_8bit")
    asked = [
        key for key in ("offload_optimizer", "offload_params", "offload_reference") if getattr(learner, key) != "none"
    ]
    if asked:
        keys = " and ".join(f"learner.{key}" for key in asked)
        notes.append(f"{keys}: ranks on CPUs have all they hold in main memory, and nothing is moved")
    return tuple(notes)
