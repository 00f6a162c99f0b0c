"""Responses whose tokens are elsewhere: what a loop knows of them (RolloutHead), and where the rest is (RolloutRefs).

```
 rollout worker: a chunk's rollouts --> kept where it is, as one part ------------------------> scorers, learner ranks
                         |                                                                      (RolloutRefs: part, row)
                         +--> ChunkHeads: lengths, ends, digests --> driver: a RolloutHead for each response
```
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from plumbob.rollout.rollout_records import (
    NOT_STARTED,
    FinishReason,
    PartialResponse,
    Rollout,
    RowLocation,
    SampleRequest,
)


class EpisodeHead(NamedTuple):
    """Attributes: as of `EpisodeRecord`."""

    num_turns: int
    reward: float
    failure: str | None


@dataclass(frozen=True)
class ChunkHeads:
    """What is known of a chunk's rollouts, in their order: a list each.

    Attributes:
        beginnings: of the responses, as of `Rollout`.
        started: of those that are partial, what there is; None of the others.
        finish_reasons, num_tokens, num_actions, token_digests, episodes: as of `Rollout`.
    """

    finish_reasons: list[FinishReason]
    beginnings: list[str]
    num_tokens: list[int]
    num_actions: list[int]
    token_digests: list[bytes]
    episodes: list[EpisodeHead | None]
    started: list[PartialResponse | None]

    @classmethod
    def of(cls, rollouts: Sequence[Rollout]) -> "ChunkHeads":
        return cls(
            [one.finish_reason for one in rollouts],
            [one.beginning for one in rollouts],
            [one.num_tokens for one in rollouts],
            [one.num_actions for one in rollouts],
            [one.token_digest for one in rollouts],
            [_episode_head(one) for one in rollouts],
            [one.as_started if one.finish_reason == "partial" else None for one in rollouts],
        )


def _episode_head(rollout: Rollout) -> EpisodeHead | None:
    episode = rollout.episode
    return None if episode is None else EpisodeHead(episode.num_turns, episode.reward, episode.failure)


@dataclass(frozen=True)
class RolloutHead:
    """One sampled response, without its tokens and its text.

    Attributes:
        location: where these are.
        started: of a partial response what there is; None of a whole one.
        request, finish_reason, num_tokens, num_actions, token_digest, beginning, episode: as of `Rollout`.
    """

    request: SampleRequest
    finish_reason: FinishReason
    beginning: str
    num_tokens: int
    num_actions: int
    token_digest: bytes
    episode: EpisodeHead | None
    started: PartialResponse | None
    location: RowLocation

    @property
    def response(self) -> str:
        """Nothing: whoever reads it asks for it at `location`."""
        return ""


Response = Rollout | RolloutHead
"""A sampled response as a loop sees it: whole, or its head."""


def whole(response: Response) -> Rollout:
    """One that is here."""
    assert isinstance(response, Rollout), "its tokens are elsewhere"
    return response


def heads_of(requests: Sequence[SampleRequest], chunk: ChunkHeads, part: Any) -> list[RolloutHead]:
    """The responses to a chunk's requests, whose rollouts are `part`."""
    return [
        RolloutHead(
            request=first_asked(request),
            finish_reason=chunk.finish_reasons[row],
            beginning=chunk.beginnings[row],
            num_tokens=chunk.num_tokens[row],
            num_actions=chunk.num_actions[row],
            token_digest=chunk.token_digests[row],
            episode=chunk.episodes[row],
            started=chunk.started[row],
            location=RowLocation(part, row),
        )
        for row, request in enumerate(requests)
    ]


def first_asked(request: SampleRequest) -> SampleRequest:
    """The request without what was started."""
    if request.partial is NOT_STARTED or not len(request.partial.token_ids):
        return request
    return replace(request, partial=NOT_STARTED)


@dataclass(frozen=True)
class RolloutRefs:
    """Rollouts by where they are.

    Attributes:
        parts: each a chunk's rollouts, or what fetches them.
        locations: (number of the part, row) of each rollout.
    """

    parts: tuple[Any, ...]
    locations: tuple[tuple[int, int], ...]

    def of(self, parts: Sequence[Sequence[Rollout]]) -> list[Rollout]:
        """The rollouts, out of the parts as they were fetched."""
        return [parts[part][row] for part, row in self.locations]


def refer(responses: Sequence[Response]) -> RolloutRefs:
    """Where these are, each part once; those that are here are a part of their own."""
    here = [one for one in responses if isinstance(one, Rollout)]
    if len(here) == len(responses):
        return RolloutRefs((here,), tuple((0, row) for row in range(len(here))))
    numbers: dict[Any, int] = {}
    heads = [one for one in responses if isinstance(one, RolloutHead)]
    assert len(heads) == len(responses), "all of a step are here, or none"
    locations = tuple((numbers.setdefault(one.location.part, len(numbers)), one.location.row) for one in heads)
    return RolloutRefs(tuple(numbers), locations)
