"""The sampler around a vLLM engine in this process, driven step by step."""

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed import FileStore, PrefixStore

from plumbob.configs.settings.workers import VllmEngine
from plumbob.core.errors import UserError, first_line
from plumbob.core.garbage import uncollected
from plumbob.data.texts.codec import TextCodec
from plumbob.models.adapter import Adapter, PolicyWeights, save_adapter
from plumbob.rollout.publish_proof import PublishProof
from plumbob.rollout.rollout_records import FinishReason, Rollout, SampleRequest
from plumbob.rollout.samplers.sampler import (
    BASE_VERSION,
    ResponseInProgress,
    SamplerSpec,
    begin_response,
    open_sampler_model,
    stop_token_ids,
)
from plumbob.rollout.samplers.vllm.engine_settings import engine_arguments, environment, main_message
from plumbob.rollout.samplers.vllm.engine_weights import EngineWeights
from plumbob.rollout.samplers.vllm.lora_slots import NUM_SLOTS, LoraSlots
from plumbob.rollout.samplers.vllm.support import VLLM_SUPPORT, accepted_rank

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
        opened = open_sampler_model(spec)
        self._codec = TextCodec(opened.tokenizer)
        self._stop_ids = list(stop_token_ids(spec, opened.tokenizer))
        self._engine = _boot(spec, spec.engine)
        self._context = int(self._engine.model_config.max_model_len)
        self._names = (str(number) for number in count())
        self._running: dict[str, ResponseInProgress] = {}
        self._version = BASE_VERSION
        self._policies: LoraSlots | EngineWeights = (
            EngineWeights(self._engine, spec, opened)
            if spec.adapter == "merged"
            else LoraSlots(self._engine, spec, save)
        )
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
        is_begun = self._spec.partial_tokens is not None or any(len(one.request.partial.token_ids) for one in responses)
        if not self._running and (not is_begun or self._is_cache_old):
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
            self._engine.add_request(name, prompt, params, lora_request=self._policies.request_of(response.version))

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

    def run_to_completion(self) -> list[Rollout]:
        rollouts: list[Rollout] = []
        while self._running:
            rollouts += self.poll()
        return rollouts

    def load(self, weights: PolicyWeights) -> PublishProof:
        proof = self._policies.load(weights, self._versions_running())
        self._serve(weights.version)
        return proof

    def load_adapters(self, adapters: Sequence[Adapter]) -> list[PublishProof]:
        running, proofs = self._versions_running(), []
        for adapter in adapters:
            proofs.append(self._policies.load(adapter, running))
            running.add(adapter.version)
            self._serve(adapter.version)
        return proofs

    def serve_base(self) -> None:
        self._policies.serve_base(self._versions_running())
        self._serve(BASE_VERSION)

    def _serve(self, version: int) -> None:
        self._version = version
        self._is_cache_old = True

    def _versions_running(self) -> set[int]:
        return {response.version for response in self._running.values()}

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


def _boot(spec: SamplerSpec, settings: VllmEngine) -> Any:
    os.environ |= environment(spec, settings)
    # Whole GiB only, and it would override the setting.
    os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)
    with uncollected():
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

    if _is_cpu():
        from plumbob.rollout.samplers.vllm.lora_products import use_grouped_lora

        allow_amx()
        use_grouped_lora()
    # vLLM's CPU worker replaces torch's function by one that only warns.
    set_num_threads = torch.set_num_threads
    set_num_threads(spec.num_threads)
    has_lora = spec.adapter == "lora" and spec.lora_rank > 0
    max_lora_rank = accepted_rank(spec.lora_rank) if has_lora else 0
    arguments = engine_arguments(spec, settings, max_lora_rank, NUM_SLOTS, _is_cpu())
    try:
        return LLMEngine.from_engine_args(EngineArgs(**arguments))
    except (ValueError, NotImplementedError) as error:
        reason = f"vLLM cannot serve {spec.model} as asked: {main_message(error)}"
        raise UserError(f"{reason}; {VLLM_SUPPORT.instead}") from error
    finally:
        _remove_rendezvous()
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


def allow_amx() -> None:
    """Ask Linux for the use of AMX's tiles, which it grants a process on request alone.

    vLLM picks its kernels by what the CPU has, and one that touches a tile unasked ends the process with SIGILL.
    """
    if torch.cpu._is_amx_tile_supported():
        torch.cpu._init_amx()


def _is_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())
