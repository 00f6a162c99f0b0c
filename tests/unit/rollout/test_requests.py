import hashlib
from dataclasses import replace

import numpy as np

from plumbob.data.prompts import EncodedPrompt
from plumbob.rollout.requests import continuation, partial_seed, response_seed, sample_requests
from plumbob.rollout.rollout_records import NOT_STARTED, Rollout

PROMPTS = [EncodedPrompt(name, f"text {name}", np.array([place, 7], np.int32)) for place, name in enumerate("abba")]


def test_requests_stand_prompt_by_prompt() -> None:
    found = sample_requests(PROMPTS, samples_per_prompt=2, step=5, seed=3)
    assert [request.prompt_id for request in found] == list("aabbbbaa")
    assert [request.sample_index for request in found] == [0, 1] * 4
    # A prompt that stands twice in a batch is two groups.
    assert [request.group_id for request in found[::2]] == ["5-0", "5-1", "5-2", "5-3"]
    assert [request.prompt_ids.tolist() for request in found[::2]] == [[0, 7], [1, 7], [2, 7], [3, 7]]
    assert found[0].prompt == "text a"


def test_every_response_has_a_seed_of_its_own_that_can_be_made_again() -> None:
    steps = [sample_requests(PROMPTS, 2, step, seed) for step in (0, 1) for seed in (0, 1)]
    seeds = [request.seed for requests in steps for request in requests]
    # 32 draws below 2^31 all differ but for a chance of 2^-22.
    assert len(set(seeds)) == 32
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert [request.seed for request in sample_requests(PROMPTS, 2, 0, 0)] == [request.seed for request in steps[0]]


def test_the_seed_is_a_hash_of_three_things() -> None:
    # printf '3/5-0/1' | sha256sum begins with these 8 digits; half of them as a number.
    first = hashlib.sha256(b"3/5-0/1").hexdigest()[:8]
    assert response_seed(3, "5-0", 1) == int(first, 16) // 2


def test_a_partial_response_is_asked_for_again_with_what_there_is() -> None:
    (request,) = sample_requests(PROMPTS[:1], 1, 0, 0)
    ids, logprobs, versions = np.array([5, 6], np.int32), np.array([-1, -2], np.float32), np.array([3, 4], np.int32)
    partial = Rollout(request, "partial", "", ids, logprobs, versions, np.ones(2, np.bool_), "w")
    rest = continuation(partial)
    assert rest is not None
    found = [rest.partial.token_ids.tolist(), rest.partial.logprobs.tolist(), rest.partial.versions.tolist()]
    assert found == [[5, 6], [-1, -2], [3, 4]]
    assert replace(rest, partial=NOT_STARTED) == request
    assert continuation(replace(partial, finish_reason="stop")) is None
    assert continuation(replace(partial, finish_reason="length")) is None
    # The noise of the first two tokens is not used again.
    second = int(hashlib.sha256(f"{request.seed}/2".encode()).hexdigest()[:8], 16) // 2
    assert (partial_seed(request), partial_seed(rest)) == (request.seed, second)
