"""Weighted sums of LoRA adapters on one base, through PEFT: of the products B A, of the halves, by TIES and by DARE.

With weights w_i, scalings s_i and halves B_i, A_i of one module:

    sum          W + sum_i w_i s_i B_i A_i: what the adapters add to the base, exactly; the ranks add up
    linear       W + B A with A = sum_i c_i A_i, B = sum_i |c_i| B_i, c_i = sign(w_i) sqrt(|w_i| s_i): beside the sum
                 it has B_i A_j of every two adapters, which none of them ever computed
    ties         as linear, of halves of which the smallest numbers are 0 and only those of the sign that most have
                 count (TIES, Yadav et al. 2023, arXiv 2306.01708)
    dare_linear  as linear, of halves of which numbers are 0 at random and the others larger (DARE, Yu et al. 2023,
                 arXiv 2311.03099)
    dare_ties    ties' choice of signs on DARE's halves
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from plumbob.configs.settings.models import ModelRef
from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside
from plumbob.models.adapter import SAVED_PREFIX, Adapter, load_adapter
from plumbob.models.library.base_digest import base_digest
from plumbob.models.loading import OpenedPolicy, load_causal_lm, open_policy
from plumbob.models.merging.asked_sum import SumKind, WeightedSum
from plumbob.models.tuning.adapter_support import WHAT_PEFT_LOADS, is_plain_lora
from plumbob.models.tuning.hosting import put_adapter
from plumbob.models.tuning.methods import check_served
from plumbob.models.tuning.peft_adapters import is_adapter_parameter, published_adapter

RESULT = "weighted_sum"


def open_parts(folders: Sequence[Path]) -> list[OpenedPolicy]:
    """Adapters of one base.

    Raises:
        UserError: one cannot be loaded, or is on another base than the first.
    """
    opened = [open_policy(ModelRef(str(folder), "NAME")) for folder in folders]
    for each in opened:
        check_served(each, WHAT_PEFT_LOADS)
    known = [base_digest(each.source.base) or each.source.base for each in opened]
    other = next((index for index, base in enumerate(known) if base != known[0]), None)
    if other is not None:
        raise UserError(
            f"{folders[other]} is on {opened[other].source.base}, and {folders[0]} on {opened[0].source.base}: "
            f"adapters of different bases have no sum"
        )
    return opened


def weighted_sum(parts: Sequence[OpenedPolicy], asked: WeightedSum) -> Adapter:
    """One adapter out of several; all are computed in float32.

    Raises:
        UserError: one is no plain LoRA, or the kind of sum does not go with their ranks.
    """
    asked.check(len(parts))
    folders = [_folder_of(each) for each in parts]
    adapters = [load_adapter(folder) for folder in folders]
    for folder, adapter in zip(folders, adapters, strict=True):
        _check_summable(folder, adapter, asked.how)
    names = [f"part_{index}" for index in range(len(parts))]
    model: Any = load_causal_lm(parts[0])
    for name, adapter, folder in zip(names, adapters, folders, strict=True):
        with from_outside(f"{folder}: PEFT cannot put it on {parts[0].source.base}"):
            model = put_adapter(model, adapter, name)
    _make_alike(model, dict(zip(names, adapters, strict=True)))
    fix = "use --how=sum, which goes with all" if asked.how != "sum" else ""
    with (
        from_outside(f"PEFT cannot sum {', '.join(map(str, folders))}", fix),
        torch.random.fork_rng(devices=[]),
        torch.no_grad(),
    ):
        torch.manual_seed(asked.seed)
        kind = "cat" if asked.how == "sum" else asked.how  # What PEFT calls them.
        model.add_weighted_adapter(names, list(asked.weights), RESULT, combination_type=kind, density=asked.density)
    own = {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if is_adapter_parameter(name, RESULT, "lora_")
    }
    return published_adapter(model, RESULT, parts[0].source.base, own, version=0)


def _folder_of(part: OpenedPolicy) -> Path:
    assert part.source.adapter is not None, "a full model is no part of a sum of adapters"
    return part.source.adapter


def _check_summable(folder: Path, adapter: Adapter, how: SumKind) -> None:
    """Raises UserError when PEFT would sum a part of the adapter alone, or write what cannot be loaded."""
    other = next((name for name in adapter.tensors if not _is_half(name)), None)
    if not is_plain_lora(folder, None) or other is not None:
        raise UserError(
            f"{folder}: only plain LoRA, B A beside weights, can be summed, and it is of another kind or holds more; "
            f"write it alone, with weight 1, into a full model: --full FOLDER"
        )
    if how != "sum" and adapter.config.get("rank_pattern"):
        raise UserError(f"{folder}: has modules of different ranks (rank_pattern), which --how=sum alone can sum")


def _is_half(tensor: str) -> bool:
    return tensor.endswith((".lora_A.weight", ".lora_B.weight", ".lora_embedding_A", ".lora_embedding_B"))


def _make_alike(model: PeftModel, adapters: Mapping[str, Adapter]) -> None:
    """Have PEFT put the sum on all modules that a part is on, with the scaling 1.

    It takes the first part's config for the sum's: with its layers, where the parts are on different ones, and with its
    rsLoRA, which would scale the sum by the root of its rank. The parts have their own scalings by then.
    """
    configs = [model.peft_config[name] for name in adapters]
    modules = [
        {name.removeprefix(SAVED_PREFIX).partition(".lora_")[0] for name in one.tensors} for one in adapters.values()
    ]
    for config, own in zip(configs, modules, strict=True):
        config.use_rslora = False
        if any(other != own for other in modules):
            config.target_modules = own
            config.layers_to_transform = config.layers_pattern = config.exclude_modules = None
