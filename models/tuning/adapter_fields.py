"""What becomes of every field of an adapter's config: who computes with it as PEFT does, and what to do else.

Whoever a stage uses an adapter for carries each field of it, or the adapter is refused before anything starts.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from plumbob.core.errors import UserError
from plumbob.models.adapter import CONFIG_FILE, ModelRole
from plumbob.models.loading import OpenedModel
from plumbob.models.resolution import read_adapter_config
from plumbob.models.sizes.kept_activations import Beside
from plumbob.models.tuning.adapter_support import WITH_TRANSFORMERS, AdapterSupport, AdapterUser

User = ModelRole | AdapterUser
"""Who computes with an adapter: a role on the learners' side, or a sampler's engine."""

LEARNERS: frozenset[User] = frozenset(get_args(ModelRole))
WITH_PEFT: frozenset[User] = LEARNERS | {"transformers"}
UNLESS_BESIDE: frozenset[User] = WITH_PEFT | {"merged"}
EVERYBODY: frozenset[User] = UNLESS_BESIDE | {"vLLM"}
NOBODY: frozenset[User] = frozenset()

WHO: Mapping[User, str] = {
    "policy": "training",
    "reference": "a frozen reference",
    "value": "a critic",
    "transformers": "the transformers sampler",
    "vLLM": "vLLM",
    "merged": "vLLM",
}

OTHER_ENGINES: Mapping[AdapterUser, str] = {
    "merged": "set rollout.adapter=merged",
    "vLLM": "set rollout.adapter=lora",
    "transformers": WITH_TRANSFORMERS,
}
"""What to set for an engine that computes with an adapter."""

MERGE = "merge it into its base first (peft's merge_and_unload) and give the result"
AS_LORA = (
    "save it as plain LoRA where it was trained (peft's save_pretrained, path_initial_model_for_weight_conversion); "
    'or, where the base that it names has the changed weights already, write "init_lora_weights": true into its config'
)
ON_CHANGED_BASE = (
    "save the base that LoftQ changed where it was trained (peft's unload, then save_pretrained), name that folder in "
    'base_model_name_or_path and write "init_lora_weights": true into its config; or ' + MERGE
)
"""PEFT converts no LoftQ: between the base and what it was changed to lies no product of two small matrices."""
AS_OTHER_LORA = 'write "init_lora_weights": true into its config, and A and B are trained as those of any other LoRA'
OF_INIT: Mapping[str, str] = {"mica": AS_OTHER_LORA, "loftq": ON_CHANGED_BASE}
"""By the value of `init_lora_weights`, what to do instead, where that is not what the field itself says."""
ANEW = "no model without it computes the same: train a LoRA without it"
NOT_LINEAR = "train LoRA instead: no weights compute the same as this, so that it cannot be merged"
NAMED_CHARACTERS = 60
"""Of a field's value, as many stand in an error."""


@dataclass(frozen=True)
class AdapterField:
    """One field of an adapter's config.

    Attributes:
        users: who computes with whatever it says, as PEFT does.
        plain: values that ask nothing of anybody, beside None, False, and what is empty.
        instead: what to do with an adapter that has it, where somebody cannot.
        asks_when_off: whether it is False that asks something.
    """

    users: frozenset[User]
    plain: tuple[Any, ...] = ()
    instead: str = MERGE
    asks_when_off: bool = False

    def is_set(self, value: object) -> bool:
        return value is False if self.asks_when_off else bool(value) and value not in self.plain


CARRIED = AdapterField(EVERYBODY)
BY_PEFT = AdapterField(WITH_PEFT)
MERGED_OR_PEFT = AdapterField(UNLESS_BESIDE)
REFUSED = AdapterField(NOBODY)

OF_ANY: Mapping[str, AdapterField] = {
    # What the adapter is on, and what wrote it.
    "auto_mapping": CARRIED,
    "peft_version": CARRIED,
    "base_model_name_or_path": CARRIED,
    "inference_mode": CARRIED,
    "task_type": AdapterField(
        NOBODY, ("CAUSAL_LM",), "give an adapter that was trained as a language model (task_type CAUSAL_LM)"
    ),
    "revision": AdapterField(
        NOBODY,
        ("main",),
        "download that revision of the base, write its folder into base_model_name_or_path, and null here",
    ),
    # Which modules. Saved tensors say which, so that any engine follows.
    "target_modules": CARRIED,
    "exclude_modules": CARRIED,
    "layers_to_transform": CARRIED,
    "layers_pattern": CARRIED,
    "fan_in_fan_out": CARRIED,
    "modules_to_save": BY_PEFT,
    # Weights of the base itself, of which there is one for all roles; PEFT allows one adapter with it.
    "bias": AdapterField(NOBODY, ("none",)),
}


@dataclass(frozen=True)
class PeftKind:
    """What is known of adapters of one kind, whoever trained them.

    Attributes:
        fields: of their configs, by name.
        beside: config -> what of it makes a difference to what a block keeps for its backward.
        mark: between a module's name and that of a tensor, in PEFT's saved names; "" of one that is on no module.
        shared: tensors that a file holds for all modules together.
    """

    fields: Mapping[str, AdapterField]
    beside: Callable[[Mapping[str, Any]], Beside]
    mark: str = ""
    shared: tuple[str, ...] = ()


def check_fields(
    opened: OpenedModel, kinds: Mapping[str, PeftKind], roles: Iterable[ModelRole], support: AdapterSupport
) -> None:
    """Look at every field of an adapter's config; a full model passes.

    Args:
        kinds: by PEFT's names of them.
        roles: what the adapter is put on the base as.
        support: of the sampler's engine that loads it.

    Raises:
        UserError: somebody would not compute with a field as PEFT does.
    """
    if opened.source.adapter is None:
        return
    where = f"{opened.ref.setting}={opened.source.adapter}"
    users = [*roles, support.user]
    config = read_adapter_config(opened.source.adapter)
    fields = kinds[config["peft_type"]].fields
    for name, value in config.items():
        field = fields.get(name)
        if field is None:
            _check_unknown(where, name, value)
        elif name == "revision" and Path(opened.source.base).is_dir():
            continue  # Of a name on the hub.
        elif field.is_set(value):
            unable = [user for user in users if user not in field.users]
            if unable:
                _refuse(opened, field, name, value, unable, support)


def _refuse(
    opened: OpenedModel,
    field: AdapterField,
    name: str,
    value: object,
    unable: Sequence[User],
    support: AdapterSupport,
) -> None:
    """Raises UserError."""
    ways = [OF_INIT.get(str(value), field.instead) if name == "init_lora_weights" else field.instead]
    if list(unable) == [support.user]:
        can_merge = not support.could_merge_into.isdisjoint(opened.config.architectures or ())
        able = field.users - {support.user} - (set() if can_merge else {"merged"})
        ways = [way for user, way in OTHER_ENGINES.items() if user in able] + ways
    where = f"{opened.ref.setting}={opened.source.adapter}"
    raise UserError(
        f"{where}: the adapter was trained with {_shown(name, value)}, which {WHO[unable[0]]} cannot carry; "
        f"{', or '.join(ways)}"
    )


def _check_unknown(where: str, name: str, value: object) -> None:
    """A field of a PEFT that came later: its switches, lists and sub-configs may change what an adapter computes.

    Raises:
        UserError: it is on, or not empty.
    """
    if value and isinstance(value, bool | list | dict):
        raise UserError(
            f"{where}: its {CONFIG_FILE} says {_shown(name, value)}, which is not known here; take it out if the "
            f"adapter does not depend on it, or {MERGE}"
        )


def _shown(name: str, value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{name}={text if len(text) <= NAMED_CHARACTERS else text[:NAMED_CHARACTERS] + '...'}"
