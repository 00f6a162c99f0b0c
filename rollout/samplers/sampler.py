"""What samples responses: the Sampler protocol, what a sampler is made from, and what all samplers share."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from transformers import GenerationConfig

from plumbob.configs.settings.models import ModelRef
from plumbob.configs.settings.programs.environments import EnvironmentSettings
from plumbob.configs.settings.workers import AdapterServing, SamplerEngine
from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside
from plumbob.data.texts.codec import TextCodec
from plumbob.data.texts.turns import ResponseEnds
from plumbob.models.adapter import Adapter, PolicyWeights
from plumbob.models.loading import OpenedPolicy, open_base
from plumbob.models.resolution import ModelSource
from plumbob.rollout.publish_proof import PublishProof
from plumbob.rollout.requests import partial_seed
from plumbob.rollout.rollout_records import NOT_STARTED, FinishReason, Rollout, SampleRequest

BASE_VERSION = -1
"""The version of tokens that the base model made, before any adapter was loaded."""

NUM_HELD = 4
"""Versions of a policy that a sampler holds beside one another."""


@dataclass(frozen=True)
class SamplerSpec:
    """Everything that one sampler is made from.

    Attributes:
        model: the base model; its name is a folder or hub name, and its dtype that of activations too.
        worker: name of the worker, which stands in every rollout.
        engine: which sampler, with its own settings.
        temperature: logits are divided by it, in sampling and in log-probs alike.
        max_tokens: of one response.
        lora_rank: largest rank of an adapter that is served unmerged; 0 when none is.
        tokenizer: folder or hub name; None takes the model's own.
        tensor_parallel: GPUs that share the model.
        num_threads: CPU threads of this process.
        adapter: how vLLM holds one; weights of the model itself it holds as those that are `merged`.
        partial_tokens: a response that has made so many since it was submitted, and is not finished, comes back
            partial; None makes responses whole.
        environment: what answers the policy's turns; None where a response is one turn.
    """

    model: ModelRef
    worker: str
    engine: SamplerEngine
    temperature: float
    max_tokens: int
    lora_rank: int
    tokenizer: str | None = None
    tensor_parallel: int = 1
    num_threads: int = 1
    adapter: AdapterServing = "lora"
    partial_tokens: int | None = None
    environment: EnvironmentSettings | None = None


class Sampler(Protocol):
    """Samples responses under the newest policy that was loaded, or that of those it holds which a request names.

    A request keeps the version that was newest when it was submitted, whatever is loaded while it runs.
    """

    @property
    def version(self) -> int:
        """What new requests will use; `BASE_VERSION` before the first load."""

    def submit(self, requests: Sequence[SampleRequest]) -> None:
        """Take requests in. Raises UserError when a prompt leaves no room for a response."""

    def poll(self) -> list[Rollout]:
        """Make one token of progress on what is running; returns the responses, whole or partial, that it ended."""

    def cancel(self) -> list[Rollout]:
        """Stop everything; returns what there is of each unfinished response, with finish reason "partial"."""

    def run_to_completion(self) -> list[Rollout]:
        """Poll until nothing is running."""

    def load(self, weights: PolicyWeights) -> PublishProof:
        """Make it the newest policy, and prove it. Raises PublishError; the version is then the old one."""

    def load_adapters(self, adapters: Sequence[Adapter]) -> list[PublishProof]:
        """Have several adapters of the base beside one another, up to NUM_HELD, until another policy is loaded.

        The last is the newest. Raises PublishError as `load`, also where one policy at a time can be held.
        """

    def serve_base(self) -> None:
        """Make the model that it was opened with, as its folder has it, what new requests will use."""

    def close(self) -> None: ...


def sample(sampler: Sampler, requests: Sequence[SampleRequest]) -> list[Rollout]:
    """One response to each request, in their order. The sampler must be idle."""
    order = {(request.group_id, request.sample_index): index for index, request in enumerate(requests)}
    if len(order) != len(requests):
        raise ValueError("two requests have the same group_id and sample_index: responses could not be told apart")
    sampler.submit(requests)
    rollouts = sampler.run_to_completion()
    return sorted(rollouts, key=lambda rollout: order[rollout.request.group_id, rollout.request.sample_index])


def stop_token_ids(spec: SamplerSpec, tokenizer: Any) -> tuple[int, ...]:
    """The tokenizer's EOS, what its chat template ends the assistant's turn with, and those of the model's generation
    config that the tokenizer marks as special.

    The mark matters: a config's default EOS id that nobody set may be an ordinary token of this vocabulary.
    """
    ids = ResponseEnds(tokenizer).stop_ids
    named = named_stop_ids(spec.model)
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return tuple(sorted(ids | special & named))


def named_stop_ids(model: ModelRef) -> set[int]:
    """Those of the model's generation config, where it has one. Raises UserError when that cannot be read."""
    with from_outside(f"{model}: generation_config.json cannot be read", "copy the model again, or delete the file"):
        try:
            named = GenerationConfig.from_pretrained(model.name).eos_token_id
        except OSError:
            return set()
        return set(named if isinstance(named, list) else [named])


@dataclass
class ResponseInProgress:
    """A response that is being made, from its beginning or from what was started.

    Attributes:
        version: of the policy that makes the tokens from here on.
        max_tokens: of the whole response.
        num_tokens: how many are made before it is handed back.
        token_ids, logprobs: of those that were made since.
    """

    request: SampleRequest
    version: int
    max_tokens: int
    num_tokens: int
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    @property
    def context_ids(self) -> NDArray[np.int32]:
        """Int32 [P + S]: what the policy reads before it writes."""
        return np.concatenate([self.request.prompt_ids, self.request.partial.token_ids])

    @property
    def seed(self) -> int:
        return partial_seed(self.request)

    def finish(self, reason: FinishReason, worker: str, codec: TextCodec) -> Rollout:
        """With what was started; where partial_tokens end before the response may, "length" becomes "partial".

        The text is without the token that ends the response.
        """
        started = self.request.partial
        token_ids = np.concatenate([started.token_ids, np.asarray(self.token_ids, np.int32)])
        versions = np.full(len(self.token_ids), self.version, np.int32)
        return Rollout(
            request=replace(self.request, partial=NOT_STARTED),
            finish_reason="partial" if reason == "length" and len(token_ids) < self.max_tokens else reason,
            response=codec.decode_after(self.request.prompt_ids, token_ids[:-1] if reason == "stop" else token_ids),
            token_ids=token_ids,
            logprobs=np.concatenate([started.logprobs, np.asarray(self.logprobs, np.float32)]),
            versions=np.concatenate([started.versions, versions]),
            action_mask=np.concatenate([started.action_mask, np.ones(len(self.token_ids), np.bool_)]),
            worker=worker,
        )


def begin_response(spec: SamplerSpec, context: int, version: int, request: SampleRequest) -> ResponseInProgress:
    """A response of which nothing has been made yet but what was started.

    Args:
        version: of the policy that makes it, where the request names none.

    Raises:
        UserError: the prompt fills the context.
    """
    max_tokens = response_room(spec, context, request)
    left = max_tokens - len(request.partial.token_ids)
    if left < 1:
        raise ValueError(f"the response to prompt {request.prompt_id} has {max_tokens} tokens, which is its limit")
    version = version if request.version is None else request.version
    return ResponseInProgress(
        request, version, max_tokens, left if spec.partial_tokens is None else min(left, spec.partial_tokens)
    )


def response_room(spec: SamplerSpec, context: int, request: SampleRequest) -> int:
    """Tokens that the whole response may have, at least 1. UserError as `begin_response`."""
    room = context - len(request.prompt_ids)
    if room < 1:
        raise UserError(
            f"prompt {request.prompt_id} has {len(request.prompt_ids)} tokens and the context of {spec.model.name} is "
            f"{context}: no room for a response; lower data.max_prompt_tokens to {context - spec.max_tokens} or less"
        )
    return min(room, spec.max_tokens)


def open_sampler_model(spec: SamplerSpec) -> OpenedPolicy:
    """A sampler's model, with the tokenizer that it is to use, which may lie in an adapter's folder."""
    base = spec.model.name
    is_own = spec.tokenizer is None or spec.tokenizer == base
    return open_base(spec.model, ModelSource(base, None if is_own else Path(str(spec.tokenizer))))
