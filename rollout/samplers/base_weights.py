"""The weights of a model as its folder has them, which a sampler keeps of what it changes in its engine."""

from collections.abc import Iterable
from functools import cached_property
from typing import Any

from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from plumbob.models.loading import OpenedPolicy, load_causal_lm
from plumbob.rollout.publish_proof import PublishError


class BaseWeights:
    """Copies in the model's dtype, made when a parameter is first asked for: what stands in an engine changes."""

    def __init__(self, opened: OpenedPolicy) -> None:
        self._opened = opened
        self._kept: dict[str, Tensor] = {}

    def of(self, names: Iterable[str]) -> dict[str, Tensor]:
        """By transformers' names of parameters, as the model's files have them.

        Raises:
            UserError: the model cannot be loaded.
            PublishError: it has no such parameter.
        """
        wanted = list(names)
        absent = [name for name in wanted if name not in self._kept]
        if absent:
            found = dict(load_causal_lm(self._opened).named_parameters(remove_duplicate=False))
            for name in absent:
                if name not in found:
                    raise PublishError(f"the model {self._opened.source.base} has no parameter {name}")
                self._kept[name] = found[name].detach().clone()
        return {name: self._kept[name] for name in wanted}

    def turned(self, name: str, weight: Tensor) -> Tensor:
        """A weight as the files have it -> [out, in], as layers multiply with it; and from there back again.

        An embedding's is [vocabulary, width] in both, and what is no matrix stays.
        """
        return weight.T if name in self._transposed else weight

    def has(self, name: str) -> bool:
        """Whether the model has such a parameter."""
        return name in self._names

    @cached_property
    def _empty(self) -> Any:
        return self._opened.empty(AutoModelForCausalLM)

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(name for name, _ in self._empty.named_parameters(remove_duplicate=False))

    @cached_property
    def _transposed(self) -> frozenset[str]:
        """Weights that the model keeps as [in, out], as GPT-2's layers do."""
        modules = self._empty.named_modules()
        return frozenset(f"{name}.weight" for name, module in modules if isinstance(module, Conv1D))
