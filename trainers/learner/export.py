"""Export of a trained model: a Hugging Face folder or PEFT adapter that plain transformers and PEFT load (Artifact)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from transformers import GenerationConfig

from plumbob.models.adapter import Adapter, save_adapter
from plumbob.models.weight_files import save_model


class Artifact(Protocol):
    """How a trained model is written. `parameters`: name in the learner's module -> whole float32 CPU tensor."""

    def export(self, parameters: Mapping[str, Tensor], folder: Path) -> None: ...

    def adapter(self, parameters: Mapping[str, Tensor], version: int) -> Adapter: ...


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

    def export(self, parameters: Mapping[str, Tensor], folder: Path) -> None:
        weights = {name.removeprefix(self.prefix): tensor.to(self.model.dtype) for name, tensor in parameters.items()}
        save_model(self.model, self.tokenizer, folder, state_dict=weights)

    def adapter(self, parameters: Mapping[str, Tensor], version: int) -> Adapter:
        raise TypeError("a fully trained model has no adapter")


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

    def export(self, parameters: Mapping[str, Tensor], folder: Path) -> None:
        save_adapter(self.adapter(parameters, 0), folder)
        self.tokenizer.save_pretrained(folder)
        if self.generation is not None:
            self.generation.save_pretrained(folder)

    def adapter(self, parameters: Mapping[str, Tensor], version: int) -> Adapter:
        from plumbob.models.tuning.peft_adapters import published_adapter

        own = {name.removeprefix(self.prefix): tensor for name, tensor in parameters.items()}
        return published_adapter(self.model, "policy", self.base, own, version)


class NoArtifact:
    """A model that only computes, and is never written."""

    def export(self, parameters: Mapping[str, Tensor], folder: Path) -> None:
        raise TypeError("this model was not trained")

    def adapter(self, parameters: Mapping[str, Tensor], version: int) -> Adapter:
        raise TypeError("this model was not trained")
