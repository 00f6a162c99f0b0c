"""The newest adapter, merged into the engine's own weights: one version at a time, and no LoRA kernels.

base's weights, kept here --+--> W changed by it, float32 --> rounded --> loaded in place --> read back
adapter of version N -------+--> the same, once more -------------------------------------> compared, bit by bit
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from logging import ERROR, getLogger
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plumbob.models.adapter import Adapter
from plumbob.models.loading import DTYPES, OpenedPolicy
from plumbob.rollout.merged_adapter import WeightChange, by_tensor, weight_changes
from plumbob.rollout.publish_proof import PublishError, PublishProof, verify_publish
from plumbob.rollout.samplers.base_weights import BaseWeight, BaseWeights
from plumbob.rollout.samplers.sampler import BASE_VERSION, SamplerSpec
from plumbob.rollout.samplers.vllm.weight_readback import compare_biases, compare_weights, packed_with


class MergedWeights:
    """An engine on one device, started without LoRA, with an adapter in its weights or with none.

    Args:
        opened: the model that the engine serves.
    """

    def __init__(self, engine: Any, spec: SamplerSpec, opened: OpenedPolicy) -> None:
        self._engine, self._worker = engine, spec.worker
        self._dtype = DTYPES[spec.model.dtype]
        self._base = BaseWeights(opened)
        self._compared: dict[str, BaseWeight] = {}
        self._held: Mapping[str, WeightChange] = {}
        self._version = BASE_VERSION

    def request_of(self, version: int) -> None:
        """Nothing is asked of vLLM beside its model."""

    def load(self, adapter: Adapter, running: Collection[int]) -> PublishProof:
        """Put it into the engine instead of what is there.

        Args:
            running: versions of the responses that are being made.

        Raises:
            PublishError: there are some, whose policy would change; or the engine held other than what was sent, and
                was given back what it held before.
        """
        began = time.monotonic()
        self._refuse(running, f"version {adapter.version} is loaded")
        changes = weight_changes(adapter)
        base = self._base_of([*changes, *self._held])
        try:
            found = self._put(changes, base)
            differences = {f"{module}.weight": difference for module, difference in found.items()}
            differences |= by_tensor(changes, found)
            seconds = time.monotonic() - began
            proof = verify_publish(self._worker, adapter.version, adapter.tensors, differences, seconds)
        except PublishError:
            found = self._put(self._held, base)
            verify_publish(self._worker, self._version, found, found, 0.0)
            raise
        self._held, self._version = changes, adapter.version
        return proof

    def serve_base(self, running: Collection[int]) -> None:
        """Put the base's own weights back. Raises PublishError as `load`."""
        if not self._held:
            return
        began = time.monotonic()
        self._refuse(running, "the base is served")
        found = self._put({}, self._base_of(self._held))
        verify_publish(self._worker, BASE_VERSION, found, found, time.monotonic() - began)
        self._held, self._version = {}, BASE_VERSION

    def _refuse(self, running: Collection[int], what: str) -> None:
        if running:
            raise PublishError(
                f"worker {self._worker}: responses of versions {sorted(running)} are still being made, and with "
                f"rollout.adapter=merged the engine holds one version: drain or cancel before {what}"
            )

    def _base_of(self, modules: Iterable[str]) -> dict[str, BaseWeight]:
        """The base's weights of the modules, and of those that the engine keeps packed with them.

        What is asked for the first time is compared with the engine, which holds the base there.

        Raises:
            PublishError: they are not the same, so that merging would begin from something else.
        """
        (packed,) = self._engine.collective_rpc(packed_in_engine, args=(list(modules),))
        new = [module for module in packed if module not in self._compared]
        if new:
            found = self._base.of(new)
            differences = self._compare(new, lambda module: found[module].weight)
            verify_publish(self._worker, BASE_VERSION, new, differences, 0.0)
            self._compared |= found
        return {module: self._compared[module] for module in packed}

    def _put(self, changes: Mapping[str, WeightChange], base: Mapping[str, BaseWeight]) -> dict[str, float]:
        """Load the base's weights, changed as the adapter does; returns the differences of what the engine holds
        to a merge that was made anew. One layer's weights are made at a time."""

        def merged(module: str) -> Tensor:
            weight, change = base[module].weight, changes.get(module)
            return weight if change is None else change.merged(weight, self._dtype)

        def merged_bias(module: str) -> Tensor:
            bias, change = base[module].bias, changes.get(module)
            assert bias is not None, "those without are left out"
            return bias if change is None else change.merged_bias(bias, self._dtype)

        both = (*changes.values(), *self._held.values())
        biased = [name for name in base if base[name].bias is not None] if any(map(_changes_bias, both)) else []
        weights = ((f"{module}.weight", base[module].as_kept(merged(module))) for module in base)
        biases = ((f"{module}.bias", merged_bias(module)) for module in biased)
        self._engine.collective_rpc(load_in_engine, args=(chain(weights, biases),))
        found = self._compare(base, merged)
        (of_biases,) = self._engine.collective_rpc(compare_biases_in_engine, args=(biased, merged_bias))
        return found | {name: float(np.maximum(found[name], difference)) for name, difference in of_biases.items()}

    def _compare(self, modules: Iterable[str], expected: Callable[[str], Tensor]) -> dict[str, float]:
        (differences,) = self._engine.collective_rpc(compare_in_engine, args=(modules, expected))
        return dict(differences)


def _changes_bias(change: WeightChange) -> bool:
    return change.apply_to_bias is not None


# ------------------------------------------------------------- inside vLLM's own worker, which is in the same process


def packed_in_engine(worker: Any, modules: Sequence[str]) -> list[str]:
    model = worker.model_runner.get_model()
    return list(dict.fromkeys(part for module in modules for part in packed_with(model, module)))


def load_in_engine(worker: Any, weights: Iterable[tuple[str, Tensor]]) -> None:
    """As from a checkpoint that holds these alone: vLLM packs them anew, and leaves all other layers as they are."""
    # It warns of each layer that the checkpoint has nothing for.
    getLogger("vllm.model_executor.model_loader.reload").setLevel(ERROR)
    worker.reload_weights(weights_iterator=weights)


@torch.inference_mode()
def compare_in_engine(worker: Any, modules: Iterable[str], expected: Callable[[str], Tensor]) -> dict[str, float]:
    return compare_weights(worker.model_runner.get_model(), modules, expected)


@torch.inference_mode()
def compare_biases_in_engine(
    worker: Any, modules: Sequence[str], expected: Callable[[str], Tensor]
) -> dict[str, float]:
    return compare_biases(worker.model_runner.get_model(), modules, expected)
