"""The newest policy, in the engine's own weights: one version at a time, and no LoRA kernels.

Adapter      base's weights, kept here --+--> W + scaling B A, float32 --> rounded --+
             version N's A and B --------+                                           +--> loaded in place
FullWeights  version N's, and the base's of what they share a layer with ------------+          |
                                                            made once more, compared bit by bit <-- read back
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from logging import ERROR, getLogger
from typing import Any, assert_never

import numpy as np
import torch
from torch import Tensor

from plumbob.models.adapter import Adapter, FullWeights, PolicyWeights
from plumbob.models.loading import DTYPES, OpenedPolicy
from plumbob.rollout.merged_adapter import WeightChange, by_tensor, weight_changes
from plumbob.rollout.publish_proof import PublishError, PublishProof, verify_publish
from plumbob.rollout.samplers.base_weights import BaseWeights
from plumbob.rollout.samplers.sampler import BASE_VERSION, SamplerSpec
from plumbob.rollout.samplers.vllm.weight_readback import compare_weights, loaded_with, tied_heads


@dataclass(frozen=True)
class Change:
    """What a version has instead of the base's weights, by transformers' names of parameters.

    Attributes:
        own: weights of its own, as the model's files would have them.
        merged: module -> what an adapter makes of the base's.
    """

    own: Mapping[str, Tensor]
    merged: Mapping[str, WeightChange]

    def names(self, base: BaseWeights) -> list[str]:
        biased = [name for name, change in self.merged.items() if change.apply_to_bias is not None]
        biases = [f"{name}.bias" for name in biased if base.has(f"{name}.bias")]
        return [*self.own, *(f"{name}.weight" for name in self.merged), *biases]

    def of_sent(self, differences: Mapping[str, float]) -> dict[str, float]:
        """Differences of parameters, also under the names of the tensors that were sent."""
        of_modules = {
            module: float(np.max([differences[name] for name in both if name in differences]))
            for module in self.merged
            for both in [(f"{module}.weight", f"{module}.bias")]
        }
        return {**differences, **by_tensor(self.merged, of_modules)}


NOTHING = Change({}, {})


def change_of(weights: PolicyWeights) -> Change:
    """Raises PublishError when it is an adapter that cannot be merged."""
    match weights:
        case Adapter():
            return Change({}, weight_changes(weights))
        case FullWeights():
            return Change(weights.tensors, {})
        case _:
            assert_never(weights)


class EngineWeights:
    """An engine on one device, started without LoRA, with a policy in its weights or with the base.

    Args:
        opened: the model that the engine serves.
    """

    def __init__(self, engine: Any, spec: SamplerSpec, opened: OpenedPolicy) -> None:
        self._engine, self._worker = engine, spec.worker
        self._dtype = DTYPES[spec.model.dtype]
        self._base = BaseWeights(opened)
        self._compared: set[str] = set()
        self._changed: set[str] = set()
        self._held, self._version = NOTHING, BASE_VERSION

    def request_of(self, version: int) -> None:
        """Nothing is asked of vLLM beside its model."""

    def load(self, weights: PolicyWeights, running: Collection[int]) -> PublishProof:
        """Put it into the engine instead of what is there.

        Args:
            running: versions of the responses that are being made.

        Raises:
            PublishError: there are some, whose policy would change; or the engine held other than what was sent, and
                was given back what it held before.
        """
        began = time.monotonic()
        self._refuse(running, f"version {weights.version} is loaded")
        change = change_of(weights)
        try:
            differences = change.of_sent(self._put(change))
            seconds = time.monotonic() - began
            proof = verify_publish(self._worker, weights.version, weights.tensors, differences, seconds)
        except PublishError:
            found = self._put(self._held)
            verify_publish(self._worker, self._version, found, found, 0.0)
            raise
        self._held, self._version, self._changed = change, weights.version, set(change.names(self._base))
        return proof

    def serve_base(self, running: Collection[int]) -> None:
        """Put the base's own weights back. Raises PublishError as `load`."""
        if not self._changed:
            return
        began = time.monotonic()
        self._refuse(running, "the base is served")
        found = self._put(NOTHING)
        verify_publish(self._worker, BASE_VERSION, found, found, time.monotonic() - began)
        self._held, self._version, self._changed = NOTHING, BASE_VERSION, set()

    def _refuse(self, running: Collection[int], what: str) -> None:
        if running:
            raise PublishError(
                f"worker {self._worker}: responses of versions {sorted(running)} are still being made, and with "
                f"rollout.adapter=merged the engine holds one version: drain or cancel before {what}"
            )

    def _put(self, change: Change) -> dict[str, float]:
        """Load the base's weights with a change; returns the differences of what the engine then holds to the same,
        made anew. What may differ from the base is loaded, and what the engine has in one layer with it."""
        changed = change.names(self._base)
        (layers,) = self._engine.collective_rpc(loaded_with_in_engine, args=([*changed, *self._changed],))
        names = list(dict.fromkeys(name for layer in layers for name in layer))
        base = self._base_for(layers, change)
        self._changed |= set(changed)

        def expected(name: str) -> Tensor:
            if name in change.own:
                return change.own[name]
            module, _, kind = name.rpartition(".")
            made = change.merged.get(module)
            if made is None:
                return base[name]
            if kind == "bias":
                return made.merged_bias(base[name], self._dtype)
            return self._base.turned(name, made.merged(self._base.turned(name, base[name]), self._dtype))

        self._engine.collective_rpc(load_in_engine, args=(((name, expected(name)) for name in names),))
        return self._compare(names, expected)

    def _base_for(self, layers: Sequence[Sequence[str]], change: Change) -> dict[str, Tensor]:
        """The base's weights of what is not of the change's own.

        Layers that are asked for the first time are compared with the engine, which holds the base there.

        Raises:
            PublishError: they are not the same, so that merging would begin from something else.
        """
        needed = [layer for layer in layers if not change.own.keys() >= set(layer)]
        base = self._base.of(dict.fromkeys(name for layer in needed for name in layer))
        new = [layer for layer in needed if not self._compared.issuperset(layer) and self._changed.isdisjoint(layer)]
        names = [name for layer in new for name in layer]
        if names:
            verify_publish(self._worker, BASE_VERSION, names, self._compare(names, base.__getitem__), 0.0)
            self._compared |= set(names)
        return base

    def _compare(self, names: Iterable[str], expected: Callable[[str], Tensor]) -> dict[str, float]:
        """`expected`: a parameter's name -> what it should be, as the model's files would have it."""
        turned = self._base.turned
        (differences,) = self._engine.collective_rpc(
            compare_in_engine, args=(names, lambda name: turned(name, expected(name)))
        )
        return dict(differences)


# ------------------------------------------------------------- inside vLLM's own worker, which is in the same process


def loaded_with_in_engine(worker: Any, names: Sequence[str]) -> list[tuple[str, ...]]:
    model = worker.model_runner.get_model()
    return list(dict.fromkeys(loaded_with(model, name) for name in names))


def load_in_engine(worker: Any, weights: Iterable[tuple[str, Tensor]]) -> None:
    """As from a checkpoint that holds these alone: vLLM packs them anew, and leaves all other layers as they are.

    A head that shares the embeddings' weight is packed by itself, which reloading leaves out.
    """
    # It warns of each layer that the checkpoint has nothing for.
    getLogger("vllm.model_executor.model_loader.reload").setLevel(ERROR)
    worker.reload_weights(weights_iterator=weights)
    for head in tied_heads(worker.model_runner.get_model()):
        head.quant_method.process_weights_after_loading(head)


@torch.inference_mode()
def compare_in_engine(worker: Any, names: Iterable[str], expected: Callable[[str], Tensor]) -> dict[str, float]:
    return compare_weights(worker.model_runner.get_model(), names, expected)
