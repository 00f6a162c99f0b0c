"""The sampler around a vLLM engine in this process, driven step by step."""

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed import FileStore, PrefixStore

from plumbob.configs.settings.workers import VllmEngine
from plumbob.core.errors import UserError, first_line
from plumbob.data.texts.codec import TextCodec
from plumbob.models.adapter import Adapter, save_adapter
from plumbob.models.loading import DTYPES
from plumbob.rollout.publish_proof import PublishError, PublishProof, served_tensors, verify_publish
from plumbob.rollout.rollout_records import FinishReason, Rollout, SampleRequest
from plumbob.rollout.samplers.sampler import (
    BASE_VERSION,
    ResponseInProgress,
    SamplerSpec,
    begin_response,
    open_sampled,
    stop_token_ids,
)
from plumbob.rollout.samplers.vllm.engine_settings import engine_arguments, environment, main_message
from plumbob.rollout.samplers.vllm.lora_readback import compare_slot
from plumbob.rollout.samplers.vllm.support import VLLM_SUPPORT, accepted_rank

NUM_SLOTS = 4
"""Adapter versions that the engine holds at once: the newest, and older ones whose responses are still being made."""

_FINISH_REASONS: Mapping[str, FinishReason] = {"stop": "stop", "length": "length"}


class VllmSampler:
    """Samples with vLLM, batching continuously.

    A chunk of whole responses that is submitted to an idle sampler repeats to the byte: the prefix cache is emptied
    before it, and its requests enter the engine in order. With `partial_tokens` the cache stays while the policy does,
    so that a continuation need not read again what was read here; vLLM keys it by the adapter's name and path.

    Args:
        spec: what to make.
        save: writes an adapter where vLLM reads it.

    Raises:
        UserError: vLLM cannot serve the model as asked.
    """

    def __init__(self, spec: SamplerSpec, save: Callable[[Adapter, Path], None] = save_adapter) -> None:
        assert isinstance(spec.engine, VllmEngine)
        self._spec = spec
        self._save = save
        tokenizer = open_sampled(spec).tokenizer
        self._codec, self._stop_ids = TextCodec(tokenizer), list(stop_token_ids(spec, tokenizer))
        self._engine = _boot(spec, spec.engine)
        self._context = int(self._engine.model_config.max_model_len)
        self._names = (str(number) for number in count())
        self._running: dict[str, ResponseInProgress] = {}
        self._version = BASE_VERSION
        self._adapters: dict[int, Any] = {}
        self._is_cache_old = False
        self._try_out()

    @property
    def version(self) -> int:
        return self._version

    def submit(self, requests: Sequence[SampleRequest]) -> None:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        responses = [begin_response(self._spec, self._context, self._version, request) for request in requests]
        if not self._running and (self._spec.partial_tokens is None or self._is_cache_old):
            if not self._engine.reset_prefix_cache():
                raise RuntimeError("vLLM kept its prefix cache although nothing is running")
            self._is_cache_old = False
        for response in responses:
            params = SamplingParams(
                temperature=self._spec.temperature,
                max_tokens=response.num_tokens,
                seed=response.seed,
                logprobs=0,
                detokenize=False,
                # All EOS ids are named, because vLLM's own choice depends on the tokenizer, which it does not load.
                stop_token_ids=self._stop_ids,
                ignore_eos=True,
                output_kind=RequestOutputKind.DELTA,
            )
            name = next(self._names)
            self._running[name] = response
            prompt = TokensPrompt(prompt_token_ids=response.context_ids.tolist())
            self._engine.add_request(name, prompt, params, lora_request=self._adapters.get(self._version))

    def poll(self) -> list[Rollout]:
        finished: list[Rollout] = []
        if not self._running:
            return finished
        for output in self._engine.step():
            response = self._running[output.request_id]
            completion = output.outputs[0]
            response.token_ids += completion.token_ids
            response.logprobs += [
                position[token].logprob
                for token, position in zip(completion.token_ids, completion.logprobs or (), strict=True)
            ]
            if output.finished:
                del self._running[output.request_id]
                finished.append(self._finish(response, completion.finish_reason))
        return finished

    def _finish(self, response: ResponseInProgress, reason: str) -> Rollout:
        if reason not in _FINISH_REASONS:
            raise RuntimeError(f"vLLM ended the response to prompt {response.request.prompt_id} with {reason!r}")
        return response.finish(_FINISH_REASONS[reason], self._spec.worker, self._codec)

    def cancel(self) -> list[Rollout]:
        self._engine.abort_request(list(self._running))
        responses, self._running = list(self._running.values()), {}
        return [response.finish("partial", self._spec.worker, self._codec) for response in responses]

    def drain(self) -> list[Rollout]:
        rollouts: list[Rollout] = []
        while self._running:
            rollouts += self.poll()
        return rollouts

    def load(self, adapter: Adapter) -> PublishProof:
        began = time.monotonic()
        if self._spec.lora_rank == 0:
            raise PublishError(f"worker {self._spec.worker} was opened without adapters (lora_rank=0)")
        self._retire()
        if adapter.version not in self._adapters and len(self._adapters) == NUM_SLOTS:
            raise PublishError(
                f"worker {self._spec.worker}: responses of versions {sorted(self._adapters)} are still being made and "
                f"the engine holds {NUM_SLOTS} versions: drain or cancel before version {adapter.version} is loaded"
            )
        request = self._add_adapter(adapter)
        try:
            expected = served_tensors(adapter, DTYPES[self._spec.model.dtype])
            found = self._engine.collective_rpc(compare_in_engine, args=(request.lora_int_id, expected))
            seconds = time.monotonic() - began
            proof = verify_publish(self._spec.worker, adapter.version, adapter.tensors, _largest(found), seconds)
        except PublishError:
            if adapter.version not in self._adapters:
                self._engine.engine_core.remove_lora(request.lora_int_id)
            raise
        self._adapters[adapter.version] = request
        self._version = adapter.version
        self._is_cache_old = True
        self._retire()
        return proof

    def serve_base(self) -> None:
        self._version = BASE_VERSION
        self._is_cache_old = True

    def close(self) -> None:
        from vllm.distributed import cleanup_dist_env_and_memory

        self._engine.engine_core.shutdown()
        del self._engine
        cleanup_dist_env_and_memory()

    def _try_out(self) -> None:
        """Make two tokens: some models load and then meet an operation that vLLM has no kernel for."""
        try:
            self.submit([SampleRequest("try-out", "", 0, 0, "", np.asarray(self._stop_ids[:1], np.int32))])
            self.poll()
            self.poll()
            self.cancel()
        except RuntimeError as error:
            self.close()
            raise UserError(
                f"vLLM loads {self._spec.model} but cannot sample from it: {first_line(error)}; {VLLM_SUPPORT.instead}"
            ) from error

    def _add_adapter(self, adapter: Adapter) -> Any:
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

    def _retire(self) -> None:
        """Take out the adapters that no response needs any more."""
        used = {self._version} | {response.version for response in self._running.values()}
        for version in [version for version in self._adapters if version not in used]:
            self._engine.engine_core.remove_lora(self._adapters.pop(version).lora_int_id)


def _boot(spec: SamplerSpec, settings: VllmEngine) -> Any:
    os.environ |= environment(spec, settings)
    # Whole GiB only, and it would override the setting.
    os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    # vLLM's CPU worker replaces torch's function by one that only warns.
    set_num_threads = torch.set_num_threads
    set_num_threads(spec.num_threads)
    max_lora_rank = accepted_rank(spec.lora_rank) if spec.lora_rank else 0
    arguments = engine_arguments(spec, settings, max_lora_rank, NUM_SLOTS, _is_cpu())
    try:
        engine = LLMEngine.from_engine_args(EngineArgs(**arguments))
        _remove_rendezvous()
        return engine
    except (ValueError, NotImplementedError) as error:
        reason = f"vLLM cannot serve {spec.model} as asked: {main_message(error)}"
        raise UserError(f"{reason}; {VLLM_SUPPORT.instead}") from error
    finally:
        torch.set_num_threads = set_num_threads


def _remove_rendezvous() -> None:
    """The file by which the ranks of an engine found one another, here the only one itself: `vllm_dist_...` in the
    temporary folder, which a worker that is ended would leave there."""
    if not torch.distributed.is_initialized():  # The ranks are processes of their own.
        return
    store = torch.distributed.distributed_c10d._get_default_store()
    while isinstance(store, PrefixStore):
        store = store.underlying_store
    if isinstance(store, FileStore):
        Path(store.path).unlink(missing_ok=True)  # type: ignore[attr-defined]


def _is_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


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
    places = {parse_fine_tuned_lora_name(name, rename): name for name in expected}
    return compare_slot(manager, lora_id, expected, places)
