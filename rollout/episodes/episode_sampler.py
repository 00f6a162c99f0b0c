"""A sampler whose responses are episodes: after each turn of the policy's the environment answers, or ends it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbob.configs.settings.programs.environments import EnvironmentSettings
from plumbob.core.errors import RunFailed, UserError
from plumbob.data.records import opening_digest
from plumbob.data.texts.codec import TextCodec
from plumbob.data.texts.follow_ups import FollowUps
from plumbob.models.adapter import Adapter, PolicyWeights
from plumbob.rollout.environments.environment_host import EnvironmentHost
from plumbob.rollout.environments.environment_protocol import EnvironmentFailed, EnvironmentReply
from plumbob.rollout.environments.episode import Episode
from plumbob.rollout.publish_proof import PublishProof
from plumbob.rollout.rollout_records import (
    NO_VERSION,
    NOT_STARTED,
    EpisodeRecord,
    EpisodeTurn,
    FinishReason,
    PartialResponse,
    Rollout,
    SampleRequest,
)
from plumbob.rollout.samplers.sampler import Sampler, SamplerSpec, open_sampler_model, response_room
from plumbob.rollout.tool_calls.tool_call_parser import ToolCallParser

Key = tuple[str, int]
"""(group_id, sample_index): what tells requests apart."""

MAX_WAIT_S = 1.0
"""At a time, for environments: then it is looked at the time limits of all episodes."""


@dataclass
class _Running:
    """An episode that has not ended.

    Attributes:
        request: as it was submitted, without what has been made since.
        max_tokens: of the policy's and the environment's together.
        turns: those that the environment has answered.
        sampled: all that there is, since the policy has ended a turn; None while it writes one.
    """

    request: SampleRequest
    environment: Episode
    max_tokens: int
    turns: list[EpisodeTurn] = field(default_factory=list)
    sampled: Rollout | None = None

    def turn_ids(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """What stood before the policy's last turn, [P + S], and the turn without the token that ends it."""
        assert self.sampled is not None
        ids, written_by_others = self.sampled.token_ids, np.flatnonzero(~self.sampled.action_mask)
        start = int(written_by_others[-1]) + 1 if len(written_by_others) else 0
        end = len(ids) - (self.sampled.finish_reason == "stop")
        return np.concatenate([self.request.prompt_ids, ids[:start]]), ids[start:end]

    def text(self, codec: TextCodec, with_control: bool = False) -> str:
        """Of the policy's last turn, with its control tokens (but for the one that ends it) or without."""
        return codec.decode_after(*self.turn_ids(), with_control)


class EpisodeSampler:
    """Another sampler, each of whose responses continues for as long as the environment answers.

    The policy reads the tokens that it has written and those of the answers, never a text that is tokenised anew. A
    response's tokens are the policy's turns, each with the token that ended it, and between them what the chat template
    writes around the environment's messages: no actions, with log-prob 0.

    Args:
        sampler: makes each turn; it continues from its own prefix cache.
        environments: where the environments of all episodes run.
    """

    def __init__(self, sampler: Sampler, spec: SamplerSpec, environments: EnvironmentHost) -> None:
        assert spec.environment is not None, "episodes need an environment"
        self._sampler, self._spec, self._environments = sampler, spec, environments
        self._settings: EnvironmentSettings = spec.environment
        opened = open_sampler_model(spec)
        self._codec, self._context = TextCodec(opened.tokenizer), opened.num_positions
        self._follow_ups = FollowUps(opened.tokenizer, self._codec)
        self._calls = ToolCallParser(opened.tokenizer) if self._settings.tool_calls == "template" else None
        self._running: dict[Key, _Running] = {}

    @property
    def version(self) -> int:
        return self._sampler.version

    def submit(self, requests: Sequence[SampleRequest]) -> None:
        for request in requests:
            self._running[_key(request)] = _Running(
                request,
                self._opened(request),
                response_room(self._spec, self._context, request),
            )
        self._sampler.submit([replace(request, row={}) for request in requests])

    def _opened(self, request: SampleRequest) -> Episode:
        """Tried again where the process that opens episodes has just ended: another one is started then."""
        try:
            return self._environments.open(request.row, request.environment_seed)
        except EnvironmentFailed:
            return self._environments.open(request.row, request.environment_seed)

    def poll(self) -> list[Rollout]:
        ended = [rollout for turn in self._sampler.poll() if (rollout := self._turn_ended(turn)) is not None]
        waiting = [episode for episode in self._running.values() if episode.sampled is not None]
        if waiting and len(waiting) == len(self._running):  # Nobody samples.
            self._environments.wait([episode.environment for episode in waiting], MAX_WAIT_S)
        requests: list[SampleRequest] = []
        for episode in waiting:
            result = self._answered(episode)
            if isinstance(result, SampleRequest):
                requests.append(result)
            elif result is not None:
                ended.append(result)
        if requests:
            self._sampler.submit(requests)
        return ended

    def run_to_completion(self) -> list[Rollout]:
        rollouts: list[Rollout] = []
        while self._running:
            rollouts += self.poll()
        return rollouts

    def cancel(self) -> list[Rollout]:
        """Stop everything. What there is of an episode is given up with its environment: it begins anew elsewhere."""
        self._sampler.cancel()
        running, self._running = list(self._running.values()), {}
        for episode in running:
            episode.environment.close()
        return [_not_begun(episode.request, self._spec.worker) for episode in running]

    def load(self, weights: PolicyWeights) -> PublishProof:
        return self._sampler.load(weights)

    def load_adapters(self, adapters: Sequence[Adapter]) -> list[PublishProof]:
        return self._sampler.load_adapters(adapters)

    def serve_base(self) -> None:
        self._sampler.serve_base()

    def close(self) -> None:
        self._environments.close()
        self._sampler.close()

    def _turn_ended(self, sampled: Rollout) -> Rollout | None:
        """Hand the policy's turn to the environment; the whole episode where the limit of tokens cuts it."""
        episode = self._running[_key(sampled.request)]
        episode.sampled = sampled
        if sampled.finish_reason != "stop":
            return self._ended(episode, "length", self._turn(episode, 0.0))
        if episode.environment.is_past_its_time:
            return self._ended(episode, "stop", self._turn(episode, 0.0))
        # Control tokens may mark a call, which are no part of the text.
        spelt = episode.text(self._codec, with_control=True)
        episode.environment.begin(self._message(episode, spelt), spelt)
        return None

    def _message(self, episode: _Running, spelt: str) -> dict[str, Any]:
        """The policy's turn as a message, with the calls of tools that the template's own convention finds in it."""
        message = {"role": "assistant", "content": episode.text(self._codec)}
        if self._calls is None:
            return message
        before, _ = episode.turn_ids()
        prompt = self._codec.decode_after(before[:0], before, with_control=True)
        found = self._calls.turn_of(spelt, prompt)
        return found if "tool_calls" in found else message

    def _answered(self, episode: _Running) -> SampleRequest | Rollout | None:
        """What asks for the next turn, or the episode where it has ended; None where there is no answer yet."""
        assert episode.sampled is not None
        try:
            reply = episode.environment.poll()
            if reply is None:
                return None
            if not episode.turns:
                _check_opening(episode)
        except EnvironmentFailed as failure:
            return self._failed(episode, failure)
        turn = self._turn(episode, reply.reward)
        if reply.is_done or len(episode.turns) + 1 == self._settings.max_turns or episode.environment.is_past_its_time:
            return self._ended(episode, "stop", turn)
        request = self._next_request(episode, reply)
        if request is None:
            return self._ended(episode, "length", turn)
        episode.turns.append(replace(turn, messages=reply.messages))
        episode.sampled = None
        return request

    def _turn(self, episode: _Running, reward: float) -> EpisodeTurn:
        assert episode.sampled is not None
        return EpisodeTurn(len(episode.sampled.token_ids) - 1, episode.text(self._codec), reward)

    def _next_request(self, episode: _Running, reply: EnvironmentReply) -> SampleRequest | None:
        """None where the answer leaves no room for another turn."""
        sampled = episode.sampled
        assert sampled is not None
        context = np.concatenate([episode.request.prompt_ids, sampled.token_ids])
        answer = self._follow_ups.ids(context, reply.messages)
        num_answer = len(answer)
        if len(sampled.token_ids) + num_answer >= episode.max_tokens:
            return None
        partial = PartialResponse(
            np.concatenate([sampled.token_ids, answer]),
            np.concatenate([sampled.logprobs, np.zeros(num_answer, np.float32)]),
            np.concatenate([sampled.versions, np.full(num_answer, NO_VERSION, np.int32)]),
            np.concatenate([sampled.action_mask, np.zeros(num_answer, np.bool_)]),
        )
        return replace(episode.request, partial=partial, row={})

    def _failed(self, episode: _Running, failure: EnvironmentFailed) -> Rollout:
        """The episode as far as it came, worth what the settings say. RunFailed where they end the run."""
        assert episode.sampled is not None
        if self._settings.on_failure == "stop":
            raise RunFailed(
                f"the environment {self._settings.source} failed in an episode of prompt {episode.request.prompt_id}: "
                f"{failure}\nMend it, or set rollout.environment.on_failure to what such an episode is worth"
            )
        turn = self._turn(episode, self._settings.on_failure)
        episode.turns = [replace(earlier, reward=0.0) for earlier in episode.turns]
        return self._ended(episode, "stop", turn, failure.reason)

    def _ended(self, episode: _Running, reason: FinishReason, turn: EpisodeTurn, failure: str | None = None) -> Rollout:
        assert episode.sampled is not None
        episode.environment.close()
        del self._running[_key(episode.request)]
        return replace(
            episode.sampled,
            request=replace(episode.request, row={}),
            finish_reason=reason,
            episode=EpisodeRecord((*episode.turns, turn), failure),
        )


def with_environment(sampler: Sampler, spec: SamplerSpec) -> Sampler:
    """The same sampler, whose responses are episodes where the spec names an environment. UserError as both."""
    if spec.environment is None:
        return sampler
    try:
        return EpisodeSampler(sampler, spec, EnvironmentHost(spec.environment))
    except UserError:
        sampler.close()
        raise


def _check_opening(episode: _Running) -> None:
    """Raises EnvironmentFailed where it began otherwise than its prompt, which the policy has read."""
    opening = episode.environment.opening
    if opening is not None and opening_digest(opening) != episode.request.opening:
        raise EnvironmentFailed(
            "other opening: reset gave other messages than when the prompts were read, with the same row and seed; "
            "draw what is random from random.Random(seed)"
        )


def _key(request: SampleRequest) -> Key:
    return request.group_id, request.sample_index


def _not_begun(request: SampleRequest, worker: str) -> Rollout:
    return Rollout(
        request=request,
        finish_reason="partial",
        response="",
        token_ids=NOT_STARTED.token_ids,
        logprobs=NOT_STARTED.logprobs,
        versions=NOT_STARTED.versions,
        action_mask=NOT_STARTED.action_mask,
        worker=worker,
    )
