"""Which adapters a sampler's engine can load, as the models' side sees it; the engine's own file says what is true."""

from dataclasses import dataclass
from typing import Literal

from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.core.errors import UserError
from plumbob.models.loading import OpenedModel
from plumbob.models.resolution import served_rank


@dataclass(frozen=True)
class AdapterSupport:
    """What an engine can do with adapters.

    Attributes:
        engine: its name, for errors and in the table of what it carries of an adapter (adapter_fields.py).
        instead: what to set when it cannot do what is asked; empty where nothing can more.
        max_rank: the largest LoRA rank that it serves; None serves any.
        embedding_architectures: those on whose embeddings it serves LoRA; None serves it on all.
        loads_nothing_else: whether it refuses an adapter that holds other tensors than LoRA's.
        without_adapters: architectures that it serves no adapter on.
        merged_into: architectures into whose weights it merges adapters; None where it computes with them beside.
    """

    engine: Literal["transformers", "vLLM"] = "transformers"
    instead: str = ""
    max_rank: int | None = None
    embedding_architectures: frozenset[str] | None = None
    loads_nothing_else: bool = False
    without_adapters: frozenset[str] = frozenset()
    merged_into: frozenset[str] | None = None


WHAT_PEFT_LOADS = AdapterSupport()
"""Of a sampler that loads adapters with PEFT itself, and where none will load any."""


def check_rank(tuning: LoraTuning, support: AdapterSupport, setting: str) -> None:
    """Raises UserError when the engine serves no adapter of that rank. `setting` is the one that these settings are."""
    if support.max_rank is not None and tuning.rank > support.max_rank:
        raise UserError(
            f"{setting}.rank={tuning.rank}: {support.engine} serves LoRA up to rank {support.max_rank}; lower it or "
            f"{support.instead}"
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
