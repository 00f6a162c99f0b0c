"""What a transformers model samples as: versions of an adapter beside its weights, or other weights in their place.

Adapter      A, B under a name of the version's own --> read back --> compared; older ones stay while they are used
FullWeights  copied over the model's own -------------> read back --> compared; one version at a time
"""

import time
from collections.abc import Collection
from typing import Any, assert_never

import torch
from torch import Tensor

from plumbob.core.errors import UserError
from plumbob.models.adapter import Adapter, FullWeights, PolicyWeights
from plumbob.models.adapter_switch import activate
from plumbob.models.loading import OpenedPolicy, load_causal_lm
from plumbob.models.tuning.hosting import put_adapter, put_weights, read_adapter, read_weights, remove_adapter
from plumbob.rollout.publish_proof import PublishError, PublishProof, max_difference, verify_publish
from plumbob.rollout.samplers.sampler import SamplerSpec


class TransformersPolicy:
    """A model and the versions that it can be.

    Attributes:
        model: what computes, in the version that `use` was last given.
    """

    def __init__(self, spec: SamplerSpec, opened: OpenedPolicy, device: torch.device) -> None:
        self.model: Any = load_causal_lm(opened).to(device).eval()
        self._spec, self._opened = spec, opened
        self._adapters: set[int] = set()
        self._changed: Collection[str] = ()

    def use(self, version: int) -> None:
        """Compute as a version that was loaded and that responses are still being made of."""
        activate(self.model, _adapter_name(version) if version in self._adapters else None)

    def load(self, weights: PolicyWeights, running: Collection[int]) -> PublishProof:
        """Take a version in.

        Args:
            running: versions of the responses that are being made.

        Raises:
            UserError: it does not fit the model.
            PublishError: what computes is not what was sent, or would no longer be that of the responses.
        """
        match weights:
            case Adapter():
                return self._load_adapter(weights, running)
            case FullWeights():
                return self._load_weights(weights, running)
            case _:
                assert_never(weights)

    def serve_base(self, running: Collection[int]) -> None:
        """Have the model's own weights as they are in its folder. Raises PublishError as `load`."""
        if not self._changed:
            return
        self._refuse(running, "the base is served")
        put_weights(self.model, self._own_weights(self._changed))
        self._changed = ()

    def _load_weights(self, weights: FullWeights, running: Collection[int]) -> PublishProof:
        began = time.monotonic()
        self._refuse(running, f"version {weights.version} is loaded")
        wanted = self._own_weights(set(self._changed) - weights.tensors.keys()) | dict(weights.tensors)
        held = {name: tensor.clone() for name, tensor in read_weights(self.model).items() if name in wanted}
        try:
            put_weights(self.model, wanted)
            found = read_weights(self.model)
            differences = {name: max_difference(tensor.to(found[name]), found[name]) for name, tensor in wanted.items()}
            seconds = time.monotonic() - began
            proof = verify_publish(self._spec.worker, weights.version, weights.tensors, differences, seconds)
        except ValueError as error:
            raise UserError(f"the weights do not fit {self._spec.model}: {error}") from error
        except PublishError:
            put_weights(self.model, held)
            raise
        self._changed, self._adapters = tuple(weights.tensors), set()
        return proof

    def _own_weights(self, names: Collection[str]) -> dict[str, Tensor]:
        """What the model's folder has of these."""
        if not names:
            return {}
        found = read_weights(load_causal_lm(self._opened))
        return {name: found[name] for name in names}

    def _load_adapter(self, adapter: Adapter, running: Collection[int]) -> PublishProof:
        began = time.monotonic()
        name = _adapter_name(adapter.version)
        if self._spec.lora_rank == 0:
            raise PublishError(f"worker {self._spec.worker} was opened without adapters (lora_rank=0)")
        if self._changed:
            self._refuse(running, f"version {adapter.version} is loaded")
        try:
            self.model = put_adapter(self.model, adapter, name)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"the adapter does not fit {self._spec.model}: {error}") from error
        found = read_adapter(self.model, name, adapter.tensors)
        differences = {
            key: max_difference(tensor.to(found[key].device, found[key].dtype), found[key])
            for key, tensor in adapter.tensors.items()
            if key in found
        }
        differences |= {key: float(tensor.abs().max()) for key, tensor in found.items() if key not in adapter.tensors}
        seconds = time.monotonic() - began
        proof = verify_publish(self._spec.worker, adapter.version, adapter.tensors, differences, seconds)
        self.serve_base(running)  # When nothing can fail any more: until then the version before is what computes.
        self._adapters.add(adapter.version)
        for version in self._adapters - {adapter.version, *running}:
            remove_adapter(self.model, _adapter_name(version), instead=name)
            self._adapters.discard(version)
        return proof

    def _refuse(self, running: Collection[int], what: str) -> None:
        if running:
            raise PublishError(
                f"worker {self._spec.worker}: responses of versions {sorted(running)} are still being made, and "
                f"weights of the model itself are of one version: drain or cancel before {what}"
            )


def _adapter_name(version: int) -> str:
    return f"policy-{version}"
