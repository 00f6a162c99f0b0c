"""Adapters that vLLM multiplies beside the base's weights, with its LoRA kernels: several versions at once."""

import os
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from plumbob.core.errors import UserError, first_line
from plumbob.models.adapter import Adapter, PolicyWeights, save_adapter
from plumbob.models.loading import DTYPES
from plumbob.rollout.publish_proof import PublishError, PublishProof, verify_publish
from plumbob.rollout.samplers.sampler import BASE_VERSION, NUM_HELD, SamplerSpec
from plumbob.rollout.samplers.vllm.lora_readback import compare_slot
from plumbob.rollout.samplers.vllm.support import VLLM_SUPPORT
from plumbob.rollout.served_adapter import served_tensors

NUM_SLOTS = NUM_HELD
"""Adapter versions that the engine holds at once: the newest, and others that responses are being made of."""


class LoraSlots:
    """The versions that an engine holds.

    Args:
        save: writes an adapter where vLLM reads it.
    """

    def __init__(self, engine: Any, spec: SamplerSpec, save: Callable[[Adapter, Path], None] = save_adapter) -> None:
        self._engine, self._spec, self._save = engine, spec, save
        self._requests: dict[int, Any] = {}
        self._newest = BASE_VERSION

    def request_of(self, version: int) -> Any:
        """What names the adapter to vLLM; None of the base."""
        return self._requests.get(version)

    def load(self, adapter: PolicyWeights, running: Collection[int]) -> PublishProof:
        """Make it the newest version.

        Args:
            running: versions of the responses that are being made.

        Raises:
            PublishError: it is no adapter; or the engine holds as many versions as it can, or other than what was sent.
        """
        began = time.monotonic()
        if not isinstance(adapter, Adapter):
            raise PublishError(f"worker {self._spec.worker} was opened for adapters, and was sent weights of the model")
        if self._spec.lora_rank == 0:
            raise PublishError(f"worker {self._spec.worker} was opened without adapters (lora_rank=0)")
        self._retire({self._newest, *running})
        if adapter.version not in self._requests and len(self._requests) == NUM_SLOTS:
            raise PublishError(
                f"worker {self._spec.worker}: responses of versions {sorted(self._requests)} are still being made and "
                f"the engine holds {NUM_SLOTS} versions: drain or cancel before version {adapter.version} is loaded"
            )
        request = self._add(adapter)
        try:
            expected = served_tensors(adapter, DTYPES[self._spec.model.dtype])
            found = self._engine.collective_rpc(compare_in_engine, args=(request.lora_int_id, expected))
            seconds = time.monotonic() - began
            proof = verify_publish(self._spec.worker, adapter.version, adapter.tensors, _largest(found), seconds)
        except PublishError:
            if adapter.version not in self._requests:
                self._engine.engine_core.remove_lora(request.lora_int_id)
            raise
        self._requests[adapter.version] = request
        self._newest = adapter.version
        self._retire({self._newest, *running})
        return proof

    def serve_base(self, running: Collection[int]) -> None:
        """No version is the newest; those that are being sampled from stay."""
        self._newest = BASE_VERSION

    def _retire(self, used: Collection[int]) -> None:
        """Take out the adapters that no response needs any more."""
        for version in [version for version in self._requests if version not in used]:
            self._engine.engine_core.remove_lora(self._requests.pop(version).lora_int_id)

    def _add(self, adapter: Adapter) -> Any:
        """Hand the adapter to vLLM through a folder in memory; its name, id and path all carry the version.

        The folder is gone afterwards: should vLLM ever drop an adapter that is still wanted, it fails aloud instead of
        loading it again unproven.
        """
        from vllm.lora.request import LoRARequest

        name = f"policy-{adapter.version}"
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        with tempfile.TemporaryDirectory(prefix="plumbob-", dir=memory) as parent:
            folder = Path(parent) / name
            self._save(adapter, folder)
            # vLLM's ids begin at 1, our versions at 0.
            request = LoRARequest(name, adapter.version + 1, str(folder))
            try:
                self._engine.engine_core.add_lora(request)
            except ValueError as error:
                raise UserError(
                    f"vLLM cannot serve this adapter on {self._spec.model}: {first_line(error)} "
                    f"Change policy.tuning, or {VLLM_SUPPORT.instead}"
                ) from error
        return request


def _largest(per_rank: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Name -> largest difference over the tensor-parallel ranks; NaN counts as larger than all. Names on all ranks."""
    names = {name for differences in per_rank for name in differences}
    return {name: float(np.max([differences.get(name, np.nan) for differences in per_rank])) for name in names}


def compare_in_engine(worker: Any, lora_id: int, expected: Mapping[str, Tensor]) -> dict[str, float]:
    """Runs inside vLLM's worker: `compare_slot`, with vLLM's own reading of PEFT's names."""
    from vllm.lora.utils import parse_fine_tuned_lora_name

    manager = worker.model_runner.lora_manager._adapter_manager
    mapper = getattr(manager.model, "hf_to_vllm_mapper", None)
    rename = mapper.get_rename_mapper() if mapper is not None else None
    saved_names = {parse_fine_tuned_lora_name(name, rename): name for name in expected}
    return compare_slot(manager, lora_id, expected, saved_names)
