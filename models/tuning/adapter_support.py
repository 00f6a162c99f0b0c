"""Which adapters a sampler's engine can load, as the models' side sees it; the engine's own file says what is true."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from plumbob.configs.settings.tuning.adapters import AdapterTuning, BottleneckTuning, LoraTuning
from plumbob.configs.settings.tuning.any_tuning import PROMPT_TYPES, AnyTuning, Tuning
from plumbob.configs.settings.tuning.soft_prompts import PrefixTuning
from plumbob.configs.settings.workers import LearnerSettings
from plumbob.core.errors import UserError
from plumbob.models.loading import OpenedModel
from plumbob.models.resolution import read_adapter_config, served_rank

AdapterUser = Literal["transformers", "vLLM", "merged"]
"""Which engine computes with an adapter; vLLM beside the base's weights, or with them changed."""

WITH_TRANSFORMERS = "set rollout.engine.kind=transformers"


@dataclass(frozen=True)
class AdapterSupport:
    """What an engine can do with adapters.

    Attributes:
        engine: its name, for errors and in the table of what it carries of an adapter (adapter_fields.py).
        instead: what to set when it cannot do what is asked; empty where nothing can more.
        max_rank: the largest LoRA rank that it serves; None serves any.
        embedding_architectures: those on whose embeddings it serves LoRA; None serves it on all.
        loads_nothing_else: whether it refuses an adapter that holds other tensors than it computes with.
        without_adapters: architectures that it serves no adapter on.
        merged_into: architectures into whose weights it merges adapters; None where it computes with them beside.
        could_merge_into: those into whose weights it would merge them, were it asked to.
    """

    engine: Literal["transformers", "vLLM"] = "transformers"
    instead: str = ""
    max_rank: int | None = None
    embedding_architectures: frozenset[str] | None = None
    loads_nothing_else: bool = False
    without_adapters: frozenset[str] = frozenset()
    merged_into: frozenset[str] | None = None
    could_merge_into: frozenset[str] = frozenset()

    @property
    def user(self) -> AdapterUser:
        return self.engine if self.merged_into is None else "merged"


WHAT_PEFT_LOADS = AdapterSupport()
"""Of a sampler that loads adapters with PEFT itself, and where none will load any."""


def is_plain_lora(adapter: Path | None, tuning: Tuning | None) -> bool:
    """Whether an adapter, or where there is none what a full model is trained by, is B A beside weights and no more."""
    if adapter is None:
        return not isinstance(tuning, AdapterTuning) or tuning.is_plain_lora
    config = read_adapter_config(adapter)
    return config.get("peft_type") == LoraTuning.peft_type and not config.get("use_dora")


def stands_beside(adapter: Path | None, tuning: Tuning | None) -> bool:
    """Whether an adapter, or where there is none what a full model is trained by, reads weights in its layers' forwards
    alone."""
    if adapter is None:
        return not isinstance(tuning, AdapterTuning) or tuning.stands_beside
    return is_plain_lora(adapter, None) or read_adapter_config(adapter).get("peft_type") == BottleneckTuning.peft_type


def check_given_kind(opened: OpenedModel, tuning: AnyTuning, setting: str) -> None:
    """Raises UserError when the model is an adapter of another kind than is asked for: it is trained as what it is.

    LoRA is what a preset asks for, and is of new adapters alone.
    """
    adapter = opened.source.adapter
    if adapter is None or not isinstance(tuning, AdapterTuning) or isinstance(tuning, LoraTuning):
        return
    found = read_adapter_config(adapter).get("peft_type")
    if found != tuning.peft_type:
        raise UserError(
            f"{setting}.kind={tuning.kind}: {opened.ref.setting}={adapter} is an adapter of peft_type {found}, and is "
            f"trained further as what it is; leave {setting} out, or give a full model"
        )


def check_beside_few_bits(opened: OpenedModel) -> None:
    """Raises UserError when the model is an adapter that reads weights of which a few bits alone are kept."""
    quantization, adapter = opened.ref.quantization, opened.source.adapter
    if quantization is None or adapter is None or stands_beside(adapter, None):
        return
    if read_adapter_config(adapter).get("peft_type") not in PROMPT_TYPES:
        group = opened.ref.setting.rpartition(".")[0]
        raise UserError(
            f"{group}.quantization.kind={quantization.kind} is for LoRA, bottleneck adapters and soft prompts, and "
            f"{opened.ref.setting}={adapter} is an adapter of another kind, which reads the weights' own numbers: "
            f"leave {group}.quantization out"
        )


def check_computed(tuning: AdapterTuning, support: AdapterSupport, what: str, architectures: Collection[str]) -> None:
    """Raises UserError when the engine computes nothing of that kind. `what` names the setting that asks for it."""
    if support.engine == "vLLM" and not tuning.can_merge:
        raise UserError(
            f"{what}: {support.engine} computes plain LoRA alone beside the base's weights, and no weights compute the "
            f"same as this; {WITH_TRANSFORMERS}"
        )
    if support.user == "vLLM" and not tuning.is_plain_lora:
        can_merge = not support.could_merge_into.isdisjoint(architectures)
        merge = "set rollout.adapter=merged, for one device and uncompiled, or " if can_merge else ""
        raise UserError(
            f"{what}: {support.engine} computes plain LoRA alone beside the base's weights; {merge}{support.instead}"
        )


def check_rank(tuning: LoraTuning, support: AdapterSupport, setting: str) -> None:
    """Raises UserError when the engine serves no adapter of that rank. `setting` is the one that these settings are."""
    rank = tuning.published_rank
    if support.max_rank is not None and rank > support.max_rank:
        is_other = rank != tuning.rank
        why = f", and {setting}.rank_pattern and {setting}.init={tuning.init} make it {rank}" if is_other else ""
        raise UserError(
            f"{setting}.rank={tuning.rank}{why}: {support.engine} serves LoRA up to rank {support.max_rank}; lower it "
            f"or {support.instead}"
        )


def check_largest_rank(opened: OpenedModel, support: AdapterSupport) -> None:
    """Raises UserError when the model is an adapter of a larger rank, in any of its modules, than the engine serves."""
    if opened.source.adapter is None or support.max_rank is None:
        return
    rank = served_rank(opened.source, new_rank=0)
    if rank > support.max_rank:
        raise UserError(
            f"{opened.ref.setting}={opened.source.adapter}: the largest rank of the adapter, by r and rank_pattern, is "
            f"{rank}, and {support.engine} serves LoRA up to rank {support.max_rank}; {support.instead}"
        )


def check_architecture(opened: OpenedModel, support: AdapterSupport) -> None:
    """Raises UserError when the engine takes no adapter on such a model; it is always started to take some."""
    architectures = opened.config.architectures or ()
    if support.merged_into is not None and not support.merged_into.intersection(architectures):
        raise UserError(
            f"{opened.ref.setting}={opened.source.base}: adapters are merged in {support.engine} into "
            f"{', '.join(sorted(support.merged_into))}, and this is {', '.join(architectures)}; {support.instead}"
        )
    found = next((name for name in architectures if name in support.without_adapters), None)
    if found is not None:
        raise UserError(
            f"{opened.ref.setting}={opened.source.base}: {support.engine} serves no LoRA on {found}; {support.instead}"
        )


def check_learner(what: object, adapter: Path | None, tuning: Tuning | None, learner: LearnerSettings) -> None:
    """Raises UserError where learners would not compute with what is on a model: with what ranks that share all weights
    have not gathered, or with a cache beside activations that are computed anew.

    Args:
        what: the setting that names the model.
        adapter: the folder of what is on it.
        tuning: what a full model is trained by; None where it is a frozen one.
    """
    kind = tuning.peft_type if isinstance(tuning, AdapterTuning) else None
    if adapter is not None:
        kind = read_adapter_config(adapter).get("peft_type")
    if learner.gradient_checkpointing and tuning is not None and kind == PrefixTuning.peft_type:
        raise UserError(
            f"learner.gradient_checkpointing=true: layers whose activations are computed anew keep no cache, which the "
            f"prefix on {what} is in; set learner.gradient_checkpointing=false, or train another soft prompt "
            f"(policy.tuning.kind=prompt-tuning)"
        )
    if learner.resolved_zero_stage(True) == 3 and not stands_beside(adapter, tuning):
        shared, instead = "learner.zero_stage=3", "set learner.zero_stage=2"
        if learner.offload_params != "none":
            shared, instead = f"learner.offload_params={learner.offload_params}", "set learner.offload_params=none"
            instead += " and learner.zero_stage=2" if learner.zero_stage == 3 else ""
        raise UserError(
            f"{shared}: ranks gather a layer's weights when the layer is called, and what is on {what} "
            f"reads some elsewhere; {instead}, or train plain LoRA"
        )
