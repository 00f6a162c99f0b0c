import numpy as np

from data.prompts import EncodedPrompt
from rollout.requests import answer_seed, sample_requests

PROMPTS = [EncodedPrompt(name, f"text {name}", np.array([place, 7], np.int32)) for place, name in enumerate("abba")]


def test_requests_stand_prompt_by_prompt() -> None:
    found = sample_requests(PROMPTS, samples_per_prompt=2, step=5, seed=3)
    assert [request.prompt_id for request in found] == list("aabbbbaa")
    assert [request.sample_index for request in found] == [0, 1] * 4
    # A prompt that stands twice in a batch is two groups.
    assert [request.group_id for request in found[::2]] == ["5-0", "5-1", "5-2", "5-3"]
    assert [request.prompt_ids.tolist() for request in found[::2]] == [[0, 7], [1, 7], [2, 7], [3, 7]]
    assert found[0].prompt == "text a"


def test_every_answer_has_a_seed_of_its_own_that_can_be_made_again() -> None:
    steps = [sample_requests(PROMPTS, 2, step, seed) for step in (0, 1) for seed in (0, 1)]
    seeds = [request.seed for requests in steps for request in requests]
    # 32 draws below 2^31 all differ but for a chance of 2^-22.
    assert len(set(seeds)) == 32
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert [request.seed for request in sample_requests(PROMPTS, 2, 0, 0)] == [request.seed for request in steps[0]]


def test_the_seed_is_a_hash_of_three_things() -> None:
    # printf '3/5-0/1' | sha256sum begins with these 8 digits; half of them as a number.
    import hashlib

    first = hashlib.sha256(b"3/5-0/1").hexdigest()[:8]
    assert answer_seed(3, "5-0", 1) == int(first, 16) // 2
