"""Export of a trained model: a Hugging Face folder or PEFT adapter that plain transformers and PEFT load (Artifact)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import GenerationConfig

from plumbob.models.adapter import Adapter, FullWeights, PolicyWeights, save_adapter
from plumbob.models.files.weight_files import save_model
from plumbob.models.loading import DTYPES, OpenedPolicy, load_causal_lm

SHARD = "2GB"
"""The largest file of weights: as much as transformers has in memory when it writes."""

TASKS_FOLDER = "tasks"
"""Within the folder of a soft prompt of several tasks: the soft prompt of each."""


class Artifact(Protocol):
    """How a trained model is written. `parameters`: name in the learner's module -> whole CPU tensor.

    Attributes:
        dtype: of the parameters that it is to be given.
    """

    @property
    def dtype(self) -> torch.dtype: ...

    def export(self, parameters: Mapping[str, Tensor], folder: Path) -> None: ...

    def policy_weights(self, parameters: Mapping[str, Tensor], version: int) -> PolicyWeights:
        """What samplers are to load, where the model is a policy."""


@dataclass(frozen=True)
class FullModel:
    """A transformers model whose every weight was trained.

    Attributes:
        model: the transformers model.
        prefix: of its parameters' names within the learner's module.
        tokenizer: saved beside it.
    """

    model: Any
    prefix: str
    tokenizer: Any

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.dtype
        return dtype

    def export(self, parameters: Mapping[str, Tensor], folder: Path) -> None:
        weights = own_weights(parameters, self.prefix, self.dtype)
        save_model(self.model, self.tokenizer, folder, state_dict=weights, max_shard_size=SHARD)

    def policy_weights(self, parameters: Mapping[str, Tensor], version: int) -> FullWeights:
        return FullWeights(version, own_weights(parameters, self.prefix, self.dtype))


@dataclass(frozen=True)
class SelectedWeights:
    """A transformers model of which some weights were trained: the others are those of its folder.

    Attributes:
        opened: what it began as.
        prefix: of its parameters' names within the learner's module.
        generation: how it is sampled from.
    """

    opened: OpenedPolicy
    prefix: str
    generation: GenerationConfig

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.opened.ref.dtype]

    def export(self, parameters: Mapping[str, Tensor], folder: Path) -> None:
        model = load_causal_lm(self.opened)
        unknown = model.load_state_dict(self.policy_weights(parameters, 0).tensors, strict=False).unexpected_keys
        if unknown:
            raise RuntimeError(f"{self.opened.source.base} has no place for the {unknown[0]} that was trained")
        model.generation_config = self.generation
        save_model(model, self.opened.tokenizer, folder)

    def policy_weights(self, parameters: Mapping[str, Tensor], version: int) -> FullWeights:
        return FullWeights(version, own_weights(parameters, self.prefix, self.dtype))


def own_weights(parameters: Mapping[str, Tensor], prefix: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Those of one model of the learner's, by transformers' names, as it computes with them."""
    return {
        name.removeprefix(prefix): tensor.to(dtype) for name, tensor in parameters.items() if name.startswith(prefix)
    }


@dataclass(frozen=True)
class PolicyAdapter:
    """The policy's adapter on a frozen base, under PEFT's own names.

    Attributes:
        model: the PEFT model.
        prefix: of its parameters' names within the learner's module.
        base: folder or hub name that the adapter's config names.
        generation: how it is sampled from, where the base's own does not say it all.
    """

    model: Any
    prefix: str
    base: str
    tokenizer: Any
    generation: GenerationConfig | None = None

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def export(self, parameters: Mapping[str, Tensor], folder: Path) -> None:
        """A soft prompt of several tasks has that of each beside it, in `tasks/NAME`."""
        from plumbob.models.tuning.peft_adapters import adapters_of_tasks

        self._save(self.policy_weights(parameters, 0), folder)
        for task, adapter in adapters_of_tasks(self.model, "policy", self.base, self._own(parameters)).items():
            self._save(adapter, folder / TASKS_FOLDER / task)

    def _save(self, adapter: Adapter, folder: Path) -> None:
        save_adapter(adapter, folder)
        self.tokenizer.save_pretrained(folder)
        if self.generation is not None:
            self.generation.save_pretrained(folder)

    def policy_weights(self, parameters: Mapping[str, Tensor], version: int) -> Adapter:
        from plumbob.models.tuning.peft_adapters import published_adapter

        return published_adapter(self.model, "policy", self.base, self._own(parameters), version)

    def _own(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name.removeprefix(self.prefix): tensor for name, tensor in parameters.items()}


class NoArtifact:
    """A model that only computes, and is never written."""

    dtype = torch.float32

    def export(self, parameters: Mapping[str, Tensor], folder: Path) -> None:
        raise TypeError("this model was not trained")

    def policy_weights(self, parameters: Mapping[str, Tensor], version: int) -> PolicyWeights:
        raise TypeError("this model was not trained")
