"""Episodes, token by token, on a real sampler with environments in processes of their own."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from plumbob.configs.settings.programs.environments import EnvironmentSettings
from plumbob.configs.settings.workers import TransformersEngine
from plumbob.core.errors import RunFailed
from plumbob.data.records import opening_digest
from plumbob.data.texts.chat_text import PLAIN_CHAT_TEMPLATE
from plumbob.data.texts.codec import TextCodec
from plumbob.rollout.episodes.episode_sampler import EpisodeSampler, with_environment
from plumbob.rollout.rollout_records import NO_VERSION, Rollout
from plumbob.rollout.samplers.open_sampler import open_sampler
from plumbob.rollout.samplers.sampler import BASE_VERSION, Sampler, SamplerSpec, sample
from tests.support.opened_models import policy_ref
from tests.support.plain_transformers import load_plain, plain_logprobs
from tests.support.tiny_policy import EOS, TEMPERATURE, make_requests, write_policy

ENVIRONMENTS = str(Path(__file__).parents[3] / "support" / "echo_environments.py")
LIMIT = 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = write_policy(tmp_path_factory.mktemp("policy"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def spec_of(folder: str, name: str, max_tokens: int = LIMIT, **settings: Any) -> SamplerSpec:
    environment = EnvironmentSettings(source=f"{ENVIRONMENTS}:{name}", **settings)
    ref = policy_ref(folder)
    return SamplerSpec(ref, "rollout-0", TransformersEngine(), TEMPERATURE, max_tokens, 4, environment=environment)


@pytest.fixture(scope="module")
def echo(folder: str) -> Iterator[Sampler]:
    spec = spec_of(folder, "Echo")
    sampler = with_environment(open_sampler(spec), spec)
    yield sampler
    sampler.close()


@pytest.fixture(scope="module")
def rollouts(echo: Sampler) -> list[Rollout]:
    return sample(echo, make_requests(40))


def test_each_token_is_the_policys_or_an_answers(rollouts: list[Rollout], folder: str) -> None:
    codec, model = TextCodec(AutoTokenizer.from_pretrained(folder)), load_plain(folder)
    ended = [rollout for rollout in rollouts if rollout.finish_reason == "stop"]
    assert len(ended) >= 5, "too few episodes came to their end for this test to see"
    for rollout in ended:
        assert rollout.episode is not None and rollout.episode.failure is None
        turns = rollout.episode.turns
        assert [turn.reward for turn in turns] == [1.0, 2.0] and rollout.episode.reward == 3.0
        # By hand: each turn's tokens end in EOS; behind it what the template writes around the answer, which says how
        # many letters the turn had, and the opening of the next turn.
        start = 0
        for turn in turns:
            ids = rollout.token_ids[start : turn.end + 1]
            assert ids[-1] == EOS and EOS not in ids[:-1]
            assert rollout.action_mask[start : turn.end + 1].all()
            before = np.concatenate([rollout.request.prompt_ids, rollout.token_ids[:start]])
            assert turn.text == codec.decode_after(before, ids[:-1])
            if turn is turns[-1]:
                assert turn.messages == () and turn.end + 1 == len(rollout.token_ids)
                break
            content = f"the car has {len(turn.text)} doors"
            assert list(turn.messages) == [{"role": "user", "content": content}]
            (written,) = codec.encode([f"\n\nHuman: {content}\n\nAssistant:"])
            stop = turn.end + 1 + len(written)
            assert rollout.token_ids[turn.end + 1 : stop].tolist() == written.tolist()
            assert not rollout.action_mask[turn.end + 1 : stop].any()
            start = stop
        assert (rollout.versions == np.where(rollout.action_mask, BASE_VERSION, NO_VERSION)).all()
        # What the policy read before each of its tokens is exactly these tokens: plain transformers agree on them all.
        expected = plain_logprobs(model, rollout.request.prompt_ids, rollout.token_ids, TEMPERATURE)
        assert np.abs(expected - rollout.logprobs)[rollout.action_mask].max() < 1e-4
        assert (rollout.logprobs[~rollout.action_mask] == 0).all()


def test_what_the_policy_wrote_is_never_tokenised_anew(rollouts: list[Rollout], folder: str) -> None:
    # A policy that was not trained writes tokens that no tokenizer would: `o` and `r` where there is a token `or`.
    codec = TextCodec(AutoTokenizer.from_pretrained(folder))
    otherwise = 0
    for rollout in rollouts:
        assert rollout.episode is not None
        first = rollout.episode.turns[0]
        written = rollout.token_ids[: first.end] if len(rollout.episode.turns) > 1 else rollout.token_ids[:0]
        otherwise += codec.encode([first.text])[0].tolist() != written.tolist() and len(written) > 0
    assert otherwise > 0, "all turns are tokenised as they were written: the test above cannot tell"


def test_the_same_seed_gives_the_same_episode_beside_whatever_others(echo: Sampler, rollouts: list[Rollout]) -> None:
    for rollout in rollouts[:4]:
        (alone,) = sample(echo, [rollout.request])
        np.testing.assert_array_equal(alone.token_ids, rollout.token_ids)
        assert alone.episode == rollout.episode


def test_each_turn_has_random_numbers_of_its_own(rollouts: list[Rollout]) -> None:
    texts = [turn.text for one in rollouts if one.episode is not None for turn in one.episode.turns[:2]]
    assert len(set(texts)) > len(texts) / 2


def test_limits_of_turns_and_of_tokens_cut_an_episode(folder: str) -> None:
    spec = spec_of(folder, "Echo", max_tokens=100, max_turns=1)
    sampler = with_environment(open_sampler(spec), spec)
    try:
        found = sample(sampler, make_requests(24))
    finally:
        sampler.close()
    cut_by = set()
    for rollout in found:
        assert rollout.episode is not None and len(rollout.token_ids) <= 100
        (turn,) = rollout.episode.turns
        ends_its_turn = bool(rollout.token_ids[-1] == EOS)
        # The environment was asked about a turn that was ended, though not about one that was cut within.
        assert (turn.reward, len(rollout.token_ids) < 100) == ((1.0, True) if ends_its_turn else (0.0, False))
        assert turn.end == len(rollout.token_ids) - 1 and turn.messages == ()
        # Who ended his turn has ended the episode as he was allowed to; who had no token left was cut.
        assert rollout.finish_reason == ("stop" if ends_its_turn else "length")
        cut_by.add(ends_its_turn)
    assert cut_by == {True, False}


def test_an_episode_that_takes_too_long_ends_with_what_it_has(folder: str) -> None:
    """By the clock of the policy's own turns: the environment has not failed, and is not asked any more."""
    spec = spec_of(folder, "Echo", episode_s=0.001)
    sampler = with_environment(open_sampler(spec), spec)
    try:
        found = sample(sampler, make_requests(24))
    finally:
        sampler.close()
    ended = [rollout for rollout in found if rollout.finish_reason == "stop"]
    assert ended, "no turn was ended"
    for rollout in ended:
        assert rollout.episode is not None and rollout.episode.failure is None
        (turn,) = rollout.episode.turns
        assert turn.reward == 0.0 and turn.messages == () and turn.end == len(rollout.token_ids) - 1


@pytest.mark.parametrize(
    ("how", "reason"),
    [("raises", "RuntimeError: out of doors"), ("exits", "3"), ("hangs", "time-out")],
)
def test_an_environment_that_fails_costs_its_own_episode_alone(folder: str, how: str, reason: str) -> None:
    # Only what hangs waits for the time-out, in which on a busy machine the others still have to open.
    timeout_s = 10.0 if how == "hangs" else 60.0
    spec = spec_of(folder, "Breaking", arguments={"how": how}, timeout_s=timeout_s, on_failure=-0.5)
    sampler = with_environment(open_sampler(spec), spec)
    try:
        found = sample(sampler, make_requests(24))
    finally:
        sampler.close()
    failed = [one.episode for one in found if one.episode is not None and one.episode.failure is not None]
    others = [one.episode for one in found if one.episode is not None and one.episode.failure is None]
    assert failed and others, "of some the first turn was cut before the second failed"
    for episode in failed:
        assert episode.failure is not None and reason in episode.failure
        assert [turn.reward for turn in episode.turns] == [0.0, -0.5]
    assert all(episode.reward in (0.0, 1.0) for episode in others)


def test_an_episode_that_opens_otherwise_than_its_prompt_has_failed(folder: str) -> None:
    """The policy has answered what the prompt says, which this environment knows nothing of."""
    spec = spec_of(folder, "Asking", on_failure=-0.5)
    sampler = with_environment(open_sampler(spec), spec)
    digests = {thing: opening_digest([{"role": "user", "content": f"about the {thing}"}]) for thing in ("car", "door")}
    asked = [
        replace(request, row={"thing": "car"}, opening=digests["door" if place % 2 else "car"])
        for place, request in enumerate(make_requests(24))
    ]
    try:
        found = sample(sampler, asked)
    finally:
        sampler.close()
    answered = [one for one in found if one.token_ids[-1] == EOS]
    assert {one.request.opening for one in answered} == set(digests.values()), "too few turns were ended"
    for rollout in answered:
        assert rollout.episode is not None
        if rollout.request.opening == digests["car"]:
            assert rollout.episode.failure is None and rollout.episode.reward > 0
        else:
            assert str(rollout.episode.failure).startswith("other opening: ") and rollout.episode.reward == -0.5


def test_a_failure_ends_the_run_where_the_user_said_so(folder: str) -> None:
    spec = spec_of(folder, "Breaking", arguments={"how": "raises"}, on_failure="stop")
    sampler = with_environment(open_sampler(spec), spec)
    try:
        with pytest.raises(RunFailed, match=r"Breaking failed in an episode of prompt p\d+: .*out of doors"):
            sample(sampler, make_requests(24))
    finally:
        sampler.close()


def test_what_is_cancelled_begins_anew(echo: Sampler) -> None:
    assert isinstance(echo, EpisodeSampler)
    requests = [replace(one, group_id=f"again{index}") for index, one in enumerate(make_requests(3))]
    echo.submit(requests)
    for _ in range(5):
        echo.poll()
    given_up = echo.cancel()
    assert [rollout.finish_reason for rollout in given_up] == ["partial"] * 3
    assert all(len(rollout.token_ids) == 0 for rollout in given_up)
    assert sample(echo, requests)[0].episode is not None
