"""Responses by reference: what a loop knows of them, and that the rest is found again."""

from dataclasses import replace

import numpy as np
import pytest

from plumbob.reward.scorer import ScoreRequest, by_number, with_texts
from plumbob.rollout.requests import continuation
from plumbob.rollout.rollout_heads import ChunkHeads, EpisodeHead, RolloutHead, heads_of, refer
from plumbob.rollout.rollout_records import (
    BEGINNING,
    NOT_STARTED,
    EpisodeRecord,
    EpisodeTurn,
    FinishReason,
    Rollout,
    SampleRequest,
)


def rollout(name: str, tokens: list[int], reason: FinishReason = "stop") -> Rollout:
    request = SampleRequest(name, name, 0, 9, f"prompt {name}", np.array([5], np.int32))
    ids = np.array(tokens, np.int32)
    mask = ids != 0  # The environment wrote what is 0.
    return Rollout(request, reason, f"text {name}" * 100, ids, -ids / 10, ids * 0 + 4, mask, "rollout-0")


ONE, TWO, THREE = rollout("a", [7, 8]), rollout("b", [7, 0, 8]), rollout("c", [7, 8])


def heads(rollouts: list[Rollout], part: str) -> list[RolloutHead]:
    return heads_of([one.request for one in rollouts], ChunkHeads.of(rollouts), part)


def test_a_head_says_of_a_response_what_the_whole_one_does() -> None:
    acted = replace(TWO, episode=EpisodeRecord((EpisodeTurn(0, "a", 0.5), EpisodeTurn(2, "b", 1.0)), "gone"))
    for whole, head in zip([ONE, acted, THREE], heads([ONE, acted, THREE], "chunk"), strict=True):
        for name in ("request", "finish_reason", "num_tokens", "num_actions", "token_digest", "beginning"):
            assert getattr(head, name) == getattr(whole, name), name
        assert (head.response, head.started) == ("", None)
    two = heads([ONE, acted], "chunk")[1]
    assert (two.num_tokens, two.num_actions, len(two.beginning)) == (3, 2, BEGINNING)
    assert two.episode == EpisodeHead(2, 1.5, "gone")
    # One and three have the same tokens, two has not.
    assert ONE.token_digest == THREE.token_digest != TWO.token_digest


def test_a_partial_response_is_continued_by_its_head() -> None:
    partial = replace(ONE, finish_reason="partial")
    (head,) = heads([partial], "chunk")
    asked, expected = continuation(head), continuation(partial)
    assert asked is not None and expected is not None
    assert asked.partial.token_ids.tolist() == expected.partial.token_ids.tolist() == [7, 8]
    # What is asked for next is not what was asked for first, which the head has.
    (again,) = heads_of([asked], ChunkHeads.of([ONE]), "chunk")
    assert again.request.partial is NOT_STARTED and continuation(again) is None


def test_rollouts_are_found_where_they_are() -> None:
    chunks = {"first": [ONE, TWO], "second": [THREE]}
    found = [*heads(chunks["first"], "first"), *heads(chunks["second"], "second")]
    refs = refer([found[2], found[1], found[0]])
    assert (refs.parts, refs.locations) == (("second", "first"), ((0, 0), (1, 1), (1, 0)))
    assert refs.of([chunks[part] for part in refs.parts]) == [THREE, TWO, ONE]
    here = refer([TWO, ONE])
    assert here.of(here.parts) == [TWO, ONE]
    with pytest.raises(AssertionError, match="all of a step are here, or none"):
        refer([ONE, found[1]])


def test_a_scorer_is_given_the_texts_that_are_elsewhere() -> None:
    locations = [head.location for head in (*heads([ONE, TWO], "first"), *heads([THREE], "second"))]
    asked = [ScoreRequest("q", "", location=location) for location in locations] + [ScoreRequest("q", "here")]
    numbered, parts = by_number(asked)
    assert parts == ["first", "second"]
    assert [request.location and tuple(request.location) for request in numbered] == [(0, 0), (0, 1), (1, 0), None]
    found = with_texts(numbered, [[ONE, TWO], [THREE]])
    assert [request.response for request in found] == [ONE.response, TWO.response, THREE.response, "here"]
    assert all(request.location is None for request in found)
