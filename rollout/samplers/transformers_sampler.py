"""A sampler that is a plain loop over transformers: for models that vLLM does not serve, and to compare vLLM with."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plumbob.data.texts.codec import TextCodec
from plumbob.models.adapter import Adapter, PolicyWeights
from plumbob.rollout.publish_proof import PublishProof
from plumbob.rollout.rollout_records import Rollout, SampleRequest
from plumbob.rollout.samplers.sampler import (
    BASE_VERSION,
    ResponseInProgress,
    SamplerSpec,
    begin_response,
    open_sampler_model,
    stop_token_ids,
)
from plumbob.rollout.samplers.transformers_policy import TransformersPolicy

BATCH_ROWS = 64
"""Responses that are made at once."""


@dataclass
class _PaddedBatch:
    """Responses of one version that are made together, padded on the left.

    Attributes:
        inputs: next input of the model: [B, P] at first, then [B, 1].
        mask: [B, tokens so far], True on real tokens.
        unfinished: rows that still want tokens.
        cache: keys and values of all tokens before `inputs`.
    """

    responses: list[ResponseInProgress]
    generators: list[torch.Generator]
    inputs: Tensor
    mask: Tensor
    unfinished: set[int]
    cache: Any = None


class TransformersSampler:
    """Samples with transformers, a batch at a time. The generation config's filters and penalties are not applied."""

    def __init__(self, spec: SamplerSpec) -> None:
        torch.set_num_threads(spec.num_threads)
        self._spec = spec
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        opened = open_sampler_model(spec)
        self._policy = TransformersPolicy(spec, opened, self._device)
        self._pad_id, self._codec = opened.tokenizer.pad_token_id, TextCodec(opened.tokenizer)
        self._stop_ids = stop_token_ids(spec, opened.tokenizer)
        self._context = opened.num_positions
        self._queue: deque[ResponseInProgress] = deque()
        self._batch: _PaddedBatch | None = None
        self._version = BASE_VERSION

    @property
    def version(self) -> int:
        return self._version

    @property
    def in_progress(self) -> tuple[ResponseInProgress, ...]:
        """The responses that are being made now, as far as they are."""
        return (
            () if self._batch is None else tuple(self._batch.responses[row] for row in sorted(self._batch.unfinished))
        )

    def submit(self, requests: Sequence[SampleRequest]) -> None:
        self._queue.extend([begin_response(self._spec, self._context, self._version, request) for request in requests])

    @torch.inference_mode()
    def poll(self) -> list[Rollout]:
        if self._batch is None:
            if not self._queue:
                return []
            self._batch = self._next_batch()
        batch = self._batch
        version = batch.responses[0].version
        self._policy.use(version)
        output = self._policy.model(
            input_ids=batch.inputs,
            attention_mask=batch.mask,
            position_ids=(batch.mask.long().cumsum(1) - 1).clamp(min=0)[:, -batch.inputs.shape[1] :],
            past_key_values=batch.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        batch.cache = output.past_key_values
        logprobs = torch.log_softmax(output.logits[:, -1].float() / self._spec.temperature, dim=-1)
        tokens = draw(logprobs, batch.generators)
        batch.inputs = tokens[:, None]
        batch.mask = torch.cat([batch.mask, torch.ones_like(batch.mask[:, :1])], dim=1)
        chosen = logprobs.gather(1, tokens[:, None])[:, 0]
        finished = [
            rollout
            for row in sorted(batch.unfinished)
            if (rollout := self._extend(row, int(tokens[row]), float(chosen[row]))) is not None
        ]
        if not batch.unfinished:
            self._batch = None
        return finished

    def cancel(self) -> list[Rollout]:
        responses = [*self.in_progress, *self._queue]
        self._batch = None
        self._queue.clear()
        return [response.finish("partial", self._spec.worker, self._codec) for response in responses]

    def run_to_completion(self) -> list[Rollout]:
        rollouts: list[Rollout] = []
        while self._batch or self._queue:
            rollouts += self.poll()
        return rollouts

    def load(self, weights: PolicyWeights) -> PublishProof:
        proof = self._policy.load(weights, self._versions_running())
        self._version = weights.version
        return proof

    def load_adapters(self, adapters: Sequence[Adapter]) -> list[PublishProof]:
        running, proofs = self._versions_running(), []
        for adapter in adapters:
            proofs.append(self._policy.load(adapter, running))
            running.add(adapter.version)
            self._version = adapter.version
        return proofs

    def serve_base(self) -> None:
        self._policy.serve_base(self._versions_running())
        self._version = BASE_VERSION

    def _versions_running(self) -> set[int]:
        running = self._batch.responses if self._batch else []
        return {response.version for response in [*running, *self._queue]}

    def close(self) -> None:
        self._policy.model = None

    def _next_batch(self) -> _PaddedBatch:
        """Of the waiting responses those of the first one's version, as many as fit a batch."""
        version = self._queue[0].version
        responses = [response for response in self._queue if response.version == version][:BATCH_ROWS]
        taken = set(map(id, responses))
        self._queue = deque(response for response in self._queue if id(response) not in taken)
        contexts = [response.context_ids for response in responses]
        longest = max(map(len, contexts))
        inputs = torch.full((len(responses), longest), self._pad_id, dtype=torch.long)
        mask = torch.zeros((len(responses), longest), dtype=torch.bool)
        for row, ids in enumerate(contexts):
            inputs[row, longest - len(ids) :] = torch.from_numpy(ids.astype(np.int64))
            mask[row, longest - len(ids) :] = True
        generators = [torch.Generator().manual_seed(response.seed) for response in responses]
        return _PaddedBatch(
            responses, generators, inputs.to(self._device), mask.to(self._device), set(range(len(responses)))
        )

    def _extend(self, row: int, token: int, logprob: float) -> Rollout | None:
        assert self._batch is not None
        response = self._batch.responses[row]
        response.token_ids.append(token)
        response.logprobs.append(logprob)
        stopped = token in self._stop_ids
        if not stopped and len(response.token_ids) < response.num_tokens:
            return None
        self._batch.unfinished.discard(row)
        return response.finish("stop" if stopped else "length", self._spec.worker, self._codec)


def draw(logprobs: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """One token per row by inverting the cumulative distribution: logprobs [B, V] -> [B].

    Each row spends one uniform number of its own generator a token, so rows do not touch each other's randomness.
    """
    cumulative = logprobs.double().exp().cumsum(dim=-1)
    uniform = torch.cat([torch.rand(1, dtype=torch.float64, generator=generator) for generator in generators])
    target = uniform.to(logprobs.device)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True)[:, 0].clamp(max=logprobs.shape[1] - 1)
