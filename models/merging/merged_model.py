"""An adapter and its base as one full model: W and what the adapter adds, in float32, proven by the logits."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from plumbob.core.atomic_files import flush_all, replaced
from plumbob.core.errors import RunFailed, UserError
from plumbob.core.outside import from_outside
from plumbob.models.adapter import Adapter
from plumbob.models.files.weight_files import save_model
from plumbob.models.loading import DTYPES, OpenedPolicy, load_causal_lm
from plumbob.models.quantization.forms import KeptBits, round_weights
from plumbob.models.tuning.hosting import put_adapter

MERGED_TYPES = ("LORA", "IA3", "VERA")
"""PEFT's names of the adapters that change weights and nothing else."""

GENERATION_FILE = "generation_config.json"
MERGED = "merged"

NUM_PROBED = 16
"""Tokens of the text on which the merged model is compared."""

MOST_GAP = 1e-3
"""Of the logits in float32, as a share of the largest: sums in another order differ by some 1e-6."""


@dataclass(frozen=True)
class MergeProof:
    """How near the full model is to the adapter beside its base, on a text of NUM_PROBED tokens.

    Attributes:
        dtype: in which it was saved.
        gap: largest difference of the logits in float32, before it was saved.
        saved_gap: the same of what was saved, with the rounding to `dtype`.
    """

    dtype: str
    gap: float
    saved_gap: float


def write_merged(
    adapter: Adapter, opened: OpenedPolicy, folder: Path, dtype: str | None, bits: KeptBits | None
) -> MergeProof:
    """Write a plain Hugging Face folder, safetensors only.

    Args:
        opened: the base, with the folder of the adapter whose tokenizer and generation config go with it.
        folder: which is not there yet.
        dtype: of the saved weights; None is that of the base's own.
        bits: through which the base's weights go first, and are floats again when the adapter is added: the base that
            it was trained on. None takes them as they are stored.

    Raises:
        UserError: the folder is there, or the adapter is none that weights can hold.
        RunFailed: what was written is not what was computed.
    """
    if folder.exists():
        raise UserError(f"{folder}: is there already; give a folder that is not")
    kind = adapter.config.get("peft_type")
    if kind not in MERGED_TYPES:
        raise UserError(
            f"{opened.source.adapter}: an adapter of peft_type {kind} does not change weights alone, and cannot be "
            f"merged into them; use it beside its base"
        )
    model = load_causal_lm(opened) if bits is None else _base_of_few_bits(opened, bits)
    probe = _probe(opened)
    with from_outside(f"{opened.source.adapter}: PEFT cannot merge it into {opened.source.base}"):
        tuned = put_adapter(model, adapter, MERGED)
        beside = _logits(tuned, probe)
        model = tuned.merge_and_unload(adapter_names=[MERGED])
    gap = _gap(_logits(model, probe), beside)
    if not gap <= MOST_GAP * max(1.0, float(beside.abs().max())):
        raise UserError(
            f"{opened.source.adapter}: merged, the model computes otherwise than the adapter beside its base (logits "
            f"differ by up to {gap:.2g}): weights that it changes are used by other modules too, such as tied "
            f"embeddings; use it beside its base"
        )
    asked = _dtype(opened) if dtype is None else DTYPES[dtype]
    _round_parameters(model, asked)
    fix = "give a folder that may be written, with room for the model"
    with from_outside(f"{folder}: cannot be written", fix), replaced(folder) as partial:
        save_model(model, opened.tokenizer, partial)
        _copy_generation(opened, partial)
        written = _reloaded(opened, partial, asked)
        _check_written(written, model, folder)
        saved_gap = _gap(_logits(written, probe), beside)
        flush_all(partial)
    return MergeProof(str(asked).removeprefix("torch."), gap, saved_gap)


def _base_of_few_bits(opened: OpenedPolicy, bits: KeptBits) -> Any:
    """The base in float32, with the numbers that a learner computes with."""
    model = load_causal_lm(replace(opened, ref=replace(opened.ref, dtype=bits.dtype)))
    round_weights(model, bits.quantization)
    _round_parameters(model, torch.float32)
    return model


@torch.no_grad()
def _round_parameters(model: Any, dtype: torch.dtype) -> None:
    """Those alone: positions are computed in float32 whatever the weights are."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def _copy_generation(opened: OpenedPolicy, folder: Path) -> None:
    """How an adapter is sampled from, where its folder says it otherwise than its base."""
    own = None if opened.source.adapter is None else opened.source.adapter / GENERATION_FILE
    if own is not None and own.is_file():
        shutil.copyfile(own, folder / GENERATION_FILE)


def _check_written(written: Any, model: Any, folder: Path) -> None:
    """Raises RunFailed when a parameter is not what was saved."""
    found = dict(written.named_parameters())
    for name, parameter in model.named_parameters():
        if name not in found or not torch.equal(found[name], parameter):
            raise RunFailed(f"{folder}: {name} is not what was written")


def _reloaded(opened: OpenedPolicy, folder: Path, dtype: torch.dtype) -> Any:
    """By transformers alone."""
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, trust_remote_code=opened.ref.trust_remote_code, use_safetensors=True
    )


def _dtype(opened: OpenedPolicy) -> torch.dtype:
    """Of the base's weights as they are stored."""
    stored = opened.config.dtype
    found = getattr(torch, stored, None) if isinstance(stored, str) else stored
    return found if isinstance(found, torch.dtype) else torch.float32


def _probe(opened: OpenedPolicy) -> Tensor:
    """[1, T] ids of all over the vocabulary."""
    num_tokens = opened.config.get_text_config().vocab_size
    return (torch.arange(min(NUM_PROBED, opened.num_positions)) * 7919 % num_tokens)[None]


@torch.no_grad()
def _logits(model: Any, probe: Tensor) -> Tensor:
    logits: Tensor = model.eval()(input_ids=probe.to(model.device)).logits.float().cpu()
    return logits


def _gap(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())
