"""What sampling makes: one frozen record per response, and of an episode one per turn."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

BEGINNING = 320
"""Letters of a response that its beginning has, at most."""

FinishReason = Literal["stop", "length", "partial"]


@dataclass(frozen=True)
class PartialResponse:
    """The tokens of a response that were made before.

    Attributes:
        token_ids: int32 [S]; only in an episode, where each of the policy's turns but the next ends in one, EOS too.
        logprobs, versions, action_mask: [S], as in `Rollout`.
    """

    token_ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]
    versions: NDArray[np.int32]
    action_mask: NDArray[np.bool_]


NOT_STARTED = PartialResponse(
    np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros(0, np.bool_)
)

NO_VERSION = -1
"""Stands where the version does of a token that the policy did not write."""


@dataclass(frozen=True)
class SampleRequest:
    """One response to sample.

    Attributes:
        prompt_id: names the prompt within the run.
        group_id: responses to one prompt within one step share it.
        sample_index: which response of the group this is.
        seed: of this response's random numbers; with the policy version it decides the response.
        prompt: the text that the policy sees, chat template applied.
        prompt_ids: the same as token ids, int32 [P], never empty.
        partial: what there is of the response, which is to be continued.
        row: the prompt's row, by its columns, for the environment; empty where there is none.
        environment_seed: of all that is random in its environment: the same for all responses of a group.
        opening: `opening_digest` of the messages that its environment is to open with; "" where it has none.
        version: the policy that is to make it, of those that a sampler holds beside one another; None is the newest.
    """

    prompt_id: str
    group_id: str
    sample_index: int
    seed: int
    prompt: str
    prompt_ids: NDArray[np.int32]
    partial: PartialResponse = NOT_STARTED
    row: Mapping[str, Any] = field(default_factory=dict, hash=False)
    environment_seed: int = 0
    opening: str = ""
    version: int | None = None


class RowLocation(NamedTuple):
    """Where a rollout is. Attributes: part: what fetches the rollouts of a chunk. row: its number among them."""

    part: Any
    row: int


@dataclass(frozen=True)
class EpisodeTurn:
    """One of the policy's turns in an episode, and what the environment made of it.

    Attributes:
        end: where its last token stands in the response's `token_ids`.
        text: what the policy wrote, without the token that ended it.
        reward: of this turn; 0 where the environment was not asked, because a limit had cut the episode.
        messages: what the environment answered, which the policy's next turn follows; none after the last turn.
    """

    end: int
    text: str
    reward: float
    messages: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class EpisodeRecord:
    """What a response was that the policy and an environment made together.

    Attributes:
        turns: the policy's, in order, at least one.
        failure: why the environment could not continue; None where it did not fail.
    """

    turns: tuple[EpisodeTurn, ...]
    failure: str | None = None

    @property
    def num_turns(self) -> int:
        return len(self.turns)

    @property
    def reward(self) -> float:
        """The sum over its turns."""
        return sum(turn.reward for turn in self.turns)


@dataclass(frozen=True)
class Rollout:
    """One sampled response: an episode's is all that follows the prompt, the environment's messages too.

    Attributes:
        request: what was asked for first, without what was started.
        finish_reason: "stop" (the response ends in EOS, which is its last token; so does an episode that its
            environment ends, or the limit of its turns or seconds), "length" (cut at the limit of tokens: no EOS, or no
            room for an episode's next turn) or "partial" (to be continued, or given up).
        response: the response as text, without special tokens.
        token_ids: int32 [T], the tokens after the prompt, EOS included when there is one.
        logprobs: float32 [T], log-probability of each token under the sampler's policy at the sampling temperature; 0
            where the policy did not write it.
        versions: int32 [T], the policy version that made each token; `NO_VERSION` where none did.
        action_mask: bool [T], False on what the policy did not write.
        worker: who sampled it, of several the last.
        episode: None where no environment took part.
    """

    request: SampleRequest
    finish_reason: FinishReason
    response: str
    token_ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]
    versions: NDArray[np.int32]
    action_mask: NDArray[np.bool_]
    worker: str
    episode: EpisodeRecord | None = None

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_actions(self) -> int:
        """Of its tokens, those that the policy wrote."""
        return int(self.action_mask.sum())

    @property
    def beginning(self) -> str:
        """Of the text, as much as a person is shown during a run."""
        return self.response[:BEGINNING]

    @property
    def as_started(self) -> PartialResponse:
        """What there is, for whoever continues it."""
        return PartialResponse(self.token_ids, self.logprobs, self.versions, self.action_mask)

    @property
    def token_digest(self) -> bytes:
        """The same of responses with the same tokens."""
        return hashlib.blake2b(self.token_ids.tobytes(), digest_size=16).digest()
