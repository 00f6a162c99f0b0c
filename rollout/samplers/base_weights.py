"""The base model's own weights, which a sampler keeps of the modules that adapters are merged into."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor
from transformers.pytorch_utils import Conv1D

from plumbob.models.loading import OpenedPolicy, load_causal_lm
from plumbob.rollout.publish_proof import PublishError


@dataclass(frozen=True)
class BaseWeight:
    """One module's.

    Attributes:
        weight: [out, in]; [vocabulary, width] of an embedding.
        is_transposed: whether the model keeps it as [in, out], as GPT-2's layers do.
        bias: [out]; None where the module has none.
    """

    weight: Tensor
    is_transposed: bool
    bias: Tensor | None

    def as_kept(self, weight: Tensor) -> Tensor:
        """A weight of this module, as the model's files have it."""
        return weight.T if self.is_transposed else weight


class BaseWeights:
    """Copies in the model's dtype, made when a module is first asked for: what stands in an engine changes."""

    def __init__(self, opened: OpenedPolicy) -> None:
        self._opened = opened
        self._kept: dict[str, BaseWeight] = {}

    def of(self, modules: Iterable[str]) -> dict[str, BaseWeight]:
        """By the names that modules have in transformers' model.

        Raises:
            UserError: the model cannot be loaded.
            PublishError: it has no such module.
        """
        wanted = list(modules)
        absent = [name for name in wanted if name not in self._kept]
        if absent:
            found = dict(load_causal_lm(self._opened).named_modules())
            for name in absent:
                if name not in found:
                    raise PublishError(f"the model {self._opened.source.base} has no module {name}")
                module = found[name]
                is_transposed = isinstance(module, Conv1D)
                weight = module.weight.detach()
                bias = getattr(module, "bias", None)
                kept = (weight.T if is_transposed else weight).clone()
                self._kept[name] = BaseWeight(kept, is_transposed, None if bias is None else bias.detach().clone())
        return {name: self._kept[name] for name in wanted}
