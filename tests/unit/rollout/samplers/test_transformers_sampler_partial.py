"""Partial rollouts of the transformers sampler: log-probs, versions, lengths, and what is drawn."""

from dataclasses import replace

import numpy as np
import pytest

from plumbob.models.adapter import Adapter
from plumbob.rollout.requests import continuation
from plumbob.rollout.rollout_records import PartialResponse, SampleRequest
from plumbob.rollout.samplers.open_sampler import open_sampler
from plumbob.rollout.samplers.sampler import Sampler, SamplerSpec, sample
from tests.support.partial_rollouts import in_slices, largest_gaps, pair_statistic, statistic_bound
from tests.support.tiny_policy import EOS, TEMPERATURE, make_requests

MAX_TOKENS = 32
SLICE = 5


@pytest.fixture(scope="module")
def spec(spec: SamplerSpec) -> SamplerSpec:
    return replace(spec, max_tokens=MAX_TOKENS, partial_tokens=SLICE)


def test_a_slice_is_handed_back_and_gone_on_with(sampler: Sampler, adapters: list[Adapter]) -> None:
    sampler.load(adapters[0])
    requests = make_requests(40)
    first = sample(sampler, requests)
    unfinished = [rollout for rollout in first if rollout.finish_reason == "partial"]
    assert len(unfinished) > 20
    assert {len(rollout.token_ids) for rollout in unfinished} == {SLICE}
    assert all(rollout.finish_reason == "stop" for rollout in first if rollout not in unfinished)
    whole, added = in_slices(sampler, requests)
    # 32 tokens are 6 slices of 5 and one of 2; nothing is made that is not kept.
    assert len(added) == 7 and sum(added) == sum(len(rollout.token_ids) for rollout in whole)
    for rollout, begun in zip(whole, first, strict=True):
        length = len(rollout.token_ids)
        assert rollout.token_ids.tolist()[:SLICE] == begun.token_ids.tolist()
        eos_at = np.flatnonzero(rollout.token_ids == EOS).tolist()
        if rollout.finish_reason == "stop":
            assert eos_at == [length - 1] and length <= MAX_TOKENS
        else:
            assert (rollout.finish_reason, length, eos_at) == ("length", MAX_TOKENS, [])
        arrays = (rollout.logprobs, rollout.versions, rollout.action_mask)
        assert {len(array) for array in arrays} == {length}
        assert not len(rollout.request.partial.token_ids)
        assert continuation(rollout) is None
    assert {rollout.finish_reason for rollout in whole} == {"stop", "length"}


def test_tokens_keep_the_version_that_made_them(sampler: Sampler, folder: str, adapters: list[Adapter]) -> None:
    rollouts, _ = in_slices(sampler, make_requests(24), adapters)
    for rollout in rollouts:
        # One version a slice; the last stays.
        expected = [min(place // SLICE, 2) for place in range(len(rollout.token_ids))]
        assert rollout.versions.tolist() == expected
    gaps = largest_gaps(folder, adapters, rollouts, TEMPERATURE)
    assert max(gaps.values()) < 1e-4, gaps
    # Each adapter matters: under another the log-probs would be far off.
    swapped = [replace(adapter, version=(adapter.version + 1) % 3) for adapter in adapters]
    assert min(largest_gaps(folder, swapped, rollouts, TEMPERATURE).values()) > 0.1


def test_responses_in_slices_are_distributed_as_whole_ones(
    spec: SamplerSpec, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = open_sampler(replace(spec, max_tokens=2, partial_tokens=1))
    (request,) = make_requests(1)
    assert pair_statistic(sampler, folder, request, 4000, TEMPERATURE) < statistic_bound()
    # The test would see a second token that is drawn with the first one's noise.
    monkeypatch.setattr("plumbob.rollout.samplers.sampler.partial_seed", lambda request: request.seed)
    assert pair_statistic(sampler, folder, request, 4000, TEMPERATURE) > 2 * statistic_bound()


def test_the_context_cuts_a_continued_response(sampler: Sampler) -> None:
    (request,) = make_requests(1)
    # 256 - 248 = 8 tokens: a slice of 5 and one of 3.
    (rollout,), added = in_slices(sampler, [replace(request, prompt_ids=np.full(248, 5, np.int32))])
    assert added == [5, 3] or rollout.token_ids[-1] == EOS


def test_what_is_cancelled_can_be_gone_on_with(sampler: Sampler) -> None:
    requests = make_requests(3)
    sampler.submit(requests)
    sampler.poll()
    sampler.poll()
    begun = sampler.cancel()
    rest = [continuation(rollout) for rollout in begun]
    whole, _ = in_slices(sampler, [request for request in rest if request is not None])
    assert [rollout.token_ids.tolist()[:2] for rollout in whole] == [rollout.token_ids.tolist() for rollout in begun]


def test_a_response_at_its_limit_is_not_gone_on_with(sampler: Sampler) -> None:
    full = np.full(MAX_TOKENS, 5, np.int32)
    started = PartialResponse(full, full.astype(np.float32), full, full > 0)
    asked: SampleRequest = replace(make_requests(1)[0], partial=started)
    with pytest.raises(ValueError, match="the response to prompt p0 has 32 tokens, which is its limit"):
        sampler.submit([asked])
