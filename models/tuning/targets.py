"""What LoRA is put on: the modules that a setting or an adapter names, and whether the sampler can serve them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from plumbob.configs.settings.models import NewLlamaSettings
from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside
from plumbob.models.adapter import CONFIG_FILE, PROMPT_VECTORS, SAVE_AGAIN, SAVED_PREFIX, WEIGHTS_FILE
from plumbob.models.forward.soft_prompts import PREFIX
from plumbob.models.from_scratch import empty_llama
from plumbob.models.loading import OpenedPolicy
from plumbob.models.resolution import BASE_KEY, read_adapter_config
from plumbob.models.sizes.config_sizes import sizes_of
from plumbob.models.tuning.adapter_fields import PeftKind
from plumbob.models.tuning.adapter_support import WHAT_PEFT_LOADS, AdapterSupport

SETTING = "policy.tuning.targets"
ALL_LINEAR = "all-linear"
LINEAR = (nn.Linear, Conv1D)
ADAPTABLE = (*LINEAR, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""What PEFT has a LoRA layer for."""

"""What PEFT puts before the names of a base's modules."""


def is_named(module: str, end: str) -> bool:
    """Whether a module's name is, or ends from a dot on with, what stands for it."""
    return f".{module}".endswith(f".{end}")


def target_modules(model: Any, targets: str | Sequence[str]) -> dict[str, Any]:
    """Name -> module, of those that new adapters are put on.

    Args:
        model: which may be one without weights.
        targets: ALL_LINEAR, or names.
    """
    head, modules = model.get_output_embeddings(), dict(model.named_modules())
    if targets == ALL_LINEAR:
        return {name: one for name, one in modules.items() if isinstance(one, LINEAR) and one is not head}
    return {name: one for name, one in modules.items() if any(is_named(name, target) for target in targets)}


def num_outputs(module: Any) -> int:
    """Of a layer that adapters can be put on; an embedding's are its width."""
    return int(module.weight.shape[1 if isinstance(module, Conv1D | nn.Embedding) else 0])


def num_inputs(module: Any) -> int:
    """The other side of `num_outputs`: an embedding's are its words."""
    return int(module.weight.shape[0 if isinstance(module, Conv1D | nn.Embedding) else 1])


def check_targets(
    opened: OpenedPolicy,
    targets: str | Sequence[str],
    support: AdapterSupport = WHAT_PEFT_LOADS,
    setting: str = SETTING,
) -> None:
    """Look at what LoRA is to be put on, with the model's modules made from its config, without weights.

    A name stands for every module whose own name it is, or ends with from a dot on.

    Args:
        support: which adapters the sampler that will load them can.
        setting: the one that names the targets.

    Raises:
        UserError: a module is not there, cannot take LoRA, or cannot be served with it.
    """
    if targets != ALL_LINEAR:
        check_named_modules(opened.empty(AutoModelForCausalLM), targets, opened.source.base, support, setting)


def check_new_targets(
    spec: NewLlamaSettings, targets: str | Sequence[str], support: AdapterSupport, setting: str
) -> None:
    """As `check_targets`, for a model that is yet to be made."""
    if targets == ALL_LINEAR:
        return
    check_named_modules(empty_llama(spec), targets, f"the new {spec.setting}", support, setting)


def check_adapted(opened: OpenedPolicy, adapter: Path, kind: PeftKind, support: AdapterSupport) -> None:
    """Look at the modules that an adapter holds tensors for. UserError as `check_targets`."""
    if opened.num_virtual_tokens:
        _check_vectors(opened, adapter)
        return
    model, base = opened.empty(AutoModelForCausalLM), opened.source.base
    modules = dict(model.named_modules())
    found = {name: [name] if name in modules else [] for name in _adapted(adapter, kind, support)}
    # PEFT itself says what it cannot load.
    unusable = {} if support == WHAT_PEFT_LOADS else _unusable(model, support)
    fix = f"an adapter on {base} may hold {_possible(model, _unusable(model, support))}"
    _refuse(found, unusable, f"{opened.ref.setting}={adapter}", base, fix, support)
    _check_tensors(opened, adapter, model)


def _check_tensors(opened: OpenedPolicy, adapter: Path, model: Any) -> None:
    """What an adapter's file holds, beside the base without its weights.

    Raises:
        UserError: A and B of a linear layer are not those of a layer of its size; or it has weights of the base itself.
    """
    file, modules, weights = adapter / WEIGHTS_FILE, dict(model.named_modules()), dict(model.named_parameters())
    shapes = {name.removeprefix(SAVED_PREFIX): shape for name, shape in _shapes(file).items()}
    config = read_adapter_config(adapter)
    own_copies = config.get("modules_to_save") or ()
    for name, shape in shapes.items():
        module, _, tensor = name.partition(".lora_")
        layer = modules.get(module)
        if name in weights and not any(is_named(name.rpartition(".")[0], kept) for kept in own_copies):
            raise UserError(
                f"{opened.ref}: {file.name} has {name}, a weight of the base itself, as PEFT saves it where a "
                f"vocabulary was resized: no result and no sampler would have it. Merge the adapter into the base that "
                f"it was trained on (peft's merge_and_unload) and give the result, or, where the base has the same "
                f"weight, take it out of the file"
            )
        # Of one in blocks (BD-LoRA) A or B has a part of the layer's width.
        if not isinstance(layer, LINEAR) or tensor not in ("A.weight", "B.weight") or config.get("use_bdlora"):
            continue
        side, size, other = (1, num_inputs(layer), "B") if tensor[0] == "A" else (0, num_outputs(layer), "A")
        partner = shapes.get(f"{module}.lora_{other}.weight")
        if len(shape) != 2 or shape[side] != size or partner is None or shape[1 - side] != partner[side]:
            beside = "nothing" if partner is None else partner
            raise UserError(
                f"{opened.ref}: {name} in {file.name} is {shape} beside {beside}, and {module} of {opened.source.base} "
                f"has {num_inputs(layer)} inputs and {num_outputs(layer)} outputs; write the base that it was trained "
                f"on into {BASE_KEY} of {adapter / CONFIG_FILE}, or {SAVE_AGAIN}"
            )


def _shapes(file: Path) -> dict[str, list[int]]:
    with from_outside(f"{file}: cannot be read", SAVE_AGAIN), safe_open(file, framework="pt") as tensors:
        return {name: list(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118


def _check_vectors(opened: OpenedPolicy, adapter: Path) -> None:
    """Of a soft prompt. Raises UserError when its vectors are not those that the base reads."""
    file, base, config = adapter / WEIGHTS_FILE, opened.source.base, read_adapter_config(adapter)
    found = _shapes(file)
    model = opened.empty(AutoModelForCausalLM)
    sizes = sizes_of(model)
    is_prefix = config["peft_type"] == PREFIX
    width = 2 * sizes.num_layers * sizes.kv_size if is_prefix else model.get_input_embeddings().weight.shape[1]
    expected = {PROMPT_VECTORS: [opened.num_virtual_tokens, width]}
    if found != expected:
        raise UserError(
            f"{opened.ref}: a soft prompt of its config on {base} is {expected}, and {file} has {found}; write the "
            f"base that it was trained on into {BASE_KEY} of {adapter / CONFIG_FILE}, or {SAVE_AGAIN}"
        )


def check_named_modules(
    model: Any,
    targets: Sequence[str],
    base: str,
    support: AdapterSupport,
    setting: str,
    takes: tuple[type, ...] = ADAPTABLE,
    has_all_linear: bool = True,
) -> None:
    """Look at the names of new targets.

    Args:
        model: which may be one without weights.
        takes: the kinds of module that the method has an adapter for.
        has_all_linear: whether the setting may be ALL_LINEAR.

    Raises:
        UserError: as `check_targets`.
    """
    names = [name for name, _ in model.named_modules()]
    unusable = _unusable(model, support, takes)
    found = {target: [name for name in names if is_named(name, target)] for target in targets}
    fix = f"choose among {_possible(model, unusable)}" + (f", or set {setting}={ALL_LINEAR}" if has_all_linear else "")
    _refuse(found, unusable, setting, base, fix, support)


def _possible(model: Any, unusable: Mapping[str, str]) -> str:
    kinds = {name.rpartition(".")[2] for name, _ in model.named_modules() if name and name not in unusable}
    return ", ".join(sorted(kinds))


def _refuse(
    found: Mapping[str, list[str]],
    unusable: Mapping[str, str],
    where: str,
    base: str,
    fix: str,
    support: AdapterSupport,
) -> None:
    """Raises UserError for the first target that is on no module, or on one that is unusable."""
    for target, names in found.items():
        reason = _reason(names, unusable)
        if reason is not None:
            instead = f"; or {support.instead}" if names and support.instead else ""
            raise UserError(f"{where}: {target} {reason} in {base}; {fix}{instead}")


def _unusable(model: Any, support: AdapterSupport, takes: tuple[type, ...] = ADAPTABLE) -> Mapping[str, str]:
    """Name of a module -> why an adapter cannot be put on it, or not be served on it by the engine."""
    served = support.embedding_architectures
    serves_embeddings = served is None or type(model).__name__ in served
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    is_tied = support.merged_into is not None and model.config.get_text_config().tie_word_embeddings
    why: dict[str, str] = {}
    for name, module in model.named_modules():
        kind = type(module).__name__
        if not isinstance(module, takes):
            why[name] = f"({kind}) takes no LoRA" if takes == ADAPTABLE else f"({kind}) is no linear layer"
        elif is_tied and (module is head or module is embeddings):
            why[name] = f"({kind}) shares its weight, into which no adapter on one side alone can be merged,"
        elif not serves_embeddings and (module is head or not isinstance(module, LINEAR)):
            why[name] = (
                f"({kind}) lies outside the layers, where {support.engine} serves no LoRA for this architecture,"
            )
    return why


def _reason(names: list[str], unusable: Mapping[str, str]) -> str | None:
    if not names:
        return "is no module"
    return next((unusable[name] for name in names if name in unusable), None)


def _adapted(adapter: Path, kind: PeftKind, support: AdapterSupport) -> list[str]:
    """Names of the modules that the adapter holds tensors for, each once; what else it holds some would not take."""
    what = f"{adapter / WEIGHTS_FILE}: cannot be read"
    with from_outside(what, SAVE_AGAIN), safe_open(adapter / WEIGHTS_FILE, framework="pt") as file:
        names = [name.removeprefix(SAVED_PREFIX) for name in file.keys()]  # noqa: SIM118 - it is no mapping
    of_modules = [name for name in names if name not in kind.shared]
    kept = of_modules if support.loads_nothing_else else [name for name in of_modules if kind.mark in name]
    return list(dict.fromkeys(name.partition(kind.mark)[0].removesuffix(".base_layer") for name in kept))
