"""What becomes of every field of an adapter's config: who computes with it as PEFT does, and what to do else.

Whoever a stage uses an adapter for carries each field of it, or the adapter is refused before anything starts.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from plumbob.configs.settings.tuning.adapters import BottleneckActivation
from plumbob.configs.settings.tuning.any_tuning import PROMPT_TYPES
from plumbob.core.errors import UserError
from plumbob.models.adapter import CONFIG_FILE, ModelRole
from plumbob.models.loading import OpenedModel
from plumbob.models.resolution import read_adapter_config
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
AS_OTHER_LORA = 'write "init_lora_weights": true into its config, and A and B are trained as those of any other LoRA'
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

_OF_ANY: Mapping[str, AdapterField] = {
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

FIELDS: Mapping[str, AdapterField] = {
    **_OF_ANY,
    "peft_type": CARRIED,
    # B A x on the targets, with the scale of each.
    "r": CARRIED,
    "lora_alpha": CARRIED,
    "use_rslora": CARRIED,
    "rank_pattern": CARRIED,
    "alpha_pattern": CARRIED,
    # Switched off where there is a reference.
    "lora_dropout": CARRIED,
    # Beside B A x.
    "use_dora": MERGED_OR_PEFT,
    "lora_bias": BY_PEFT,
    "use_bdlora": BY_PEFT,
    "target_parameters": BY_PEFT,
    "trainable_token_indices": BY_PEFT,
    # One tensor under two names, of which an adapter's file holds one.
    "ensure_weight_tying": REFUSED,
    # The saved weights count, however they began: but those that began as parts of the base's own weights took these
    # out of it, and putting one on takes them out again, each time. What "lora_ga" took out nobody can find again.
    "init_lora_weights": AdapterField(NOBODY, (True, "gaussian", "eva", "orthogonal"), AS_LORA),
    "loftq_config": CARRIED,
    "eva_config": CARRIED,
    "corda_config": CARRIED,
    "lora_ga_config": CARRIED,
    # Other forwards than B A x, or other gradients.
    "kasa_config": REFUSED,
    "monteclora_config": REFUSED,
    "velora_config": REFUSED,
    "use_qalora": REFUSED,
    "qalora_group_size": CARRIED,
    "arrow_config": AdapterField(NOBODY, instead=ANEW),
    "alora_invocation_tokens": AdapterField(NOBODY, instead=ANEW),
    "layer_replication": AdapterField(
        NOBODY,
        instead="repeat the layers in the base itself, save that, and train a LoRA on it without layer_replication",
    ),
    "megatron_config": AdapterField(NOBODY, instead=ANEW),
    # A name that counts beside `megatron_config` alone.
    "megatron_core": CARRIED,
    # Never saved.
    "runtime_config": CARRIED,
}

_IA3_FIELDS: Mapping[str, AdapterField] = {
    **_OF_ANY,
    "peft_type": MERGED_OR_PEFT,
    "feedforward_modules": CARRIED,
    "init_ia3_weights": CARRIED,
}
_VERA_FIELDS: Mapping[str, AdapterField] = {
    **_OF_ANY,
    "peft_type": MERGED_OR_PEFT,
    "r": CARRIED,
    "vera_dropout": CARRIED,
    "d_initial": CARRIED,
    "projection_prng_key": CARRIED,
    "init_weights": CARRIED,
    # Drawn anew from the key they may be others on another machine.
    "save_projection": AdapterField(
        NOBODY, instead="save it again with its projections (save_projection=true)", asks_when_off=True
    ),
}

_OF_BOTTLENECKS = (
    *("auto_mapping", "peft_version", "base_model_name_or_path", "inference_mode", "task_type", "revision"),
    "target_modules",
)
_BOTTLENECK_FIELDS: Mapping[str, AdapterField] = {
    **{name: field for name, field in _OF_ANY.items() if name in _OF_BOTTLENECKS},
    "peft_type": AdapterField(WITH_PEFT, instead=NOT_LINEAR),
    "width": CARRIED,
    "activation": AdapterField(
        NOBODY, get_args(BottleneckActivation), f"train it with one of {', '.join(get_args(BottleneckActivation))}"
    ),
}

_PROMPT_FIELDS: Mapping[str, AdapterField] = {
    **{name: field for name, field in _OF_ANY.items() if name not in ("modules_to_save", "bias")},
    "peft_type": AdapterField(WITH_PEFT, instead="train LoRA instead, which every sampler computes"),
    "modules_to_save": AdapterField(NOBODY, instead="train the soft prompt again without it"),
    "num_virtual_tokens": CARRIED,
    "token_dim": CARRIED,
    "num_attention_heads": CARRIED,
    "num_layers": CARRIED,
    "num_transformer_submodules": AdapterField(NOBODY, (1,), "give one that was trained as a language model's"),
    # Where the vectors began, and what made them: the file has the vectors.
    "prompt_tuning_init": CARRIED,
    "prompt_tuning_init_text": CARRIED,
    "tokenizer_name_or_path": CARRIED,
    "tokenizer_kwargs": CARRIED,
    "encoder_reparameterization_type": CARRIED,
    "encoder_hidden_size": CARRIED,
    "encoder_num_layers": CARRIED,
    "encoder_dropout": CARRIED,
    "prefix_projection": CARRIED,
    "init_weights": CARRIED,
}

FIELDS_OF: Mapping[str, Mapping[str, AdapterField]] = {
    "LORA": FIELDS,
    "IA3": _IA3_FIELDS,
    "VERA": _VERA_FIELDS,
    "BOTTLENECK": _BOTTLENECK_FIELDS,
    **dict.fromkeys(PROMPT_TYPES, _PROMPT_FIELDS),
}
"""By PEFT's name of the adapter's kind."""


def check_adapter(opened: OpenedModel, roles: Iterable[ModelRole], support: AdapterSupport) -> None:
    """Look at every field of an adapter's config; a full model passes.

    Args:
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
    fields = FIELDS_OF[config["peft_type"]]
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
    ways = [AS_OTHER_LORA if (name, value) == ("init_lora_weights", "mica") else field.instead]
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
