"""Partial rollouts of vLLM on a real engine: log-probs, versions, its cache of prompts, and the distribution."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest

from plumbob.configs.settings.workers import VllmEngine
from plumbob.rollout.requests import continuation
from plumbob.rollout.rollout_records import SampleRequest
from plumbob.rollout.samplers.sampler import SamplerSpec, sample
from plumbob.rollout.samplers.vllm.vllm_sampler import VllmSampler
from tests.support.opened_models import policy_ref
from tests.support.partial_rollouts import in_slices, largest_gaps, pair_statistic, statistic_bound
from tests.support.tiny_policy import EOS, TEMPERATURE, VOCABULARY, make_adapter, make_requests, write_policy

pytestmark = pytest.mark.slow

MAX_TOKENS = 40
SLICE = 16
LONG = 140
"""Tokens of a prompt that fills a block of vLLM's cache, which holds 128 on a CPU."""


@dataclass
class CountedEngine:
    """An engine, and how often its cache was emptied, and how many tokens of each request it found there."""

    sampler: VllmSampler
    folder: str
    num_resets: int = 0
    num_cached: tuple[int, ...] = ()
    resets_work: bool = True


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CountedEngine]:
    folder = write_policy(tmp_path_factory.mktemp("policy"))
    engine = VllmEngine(kv_cache_gib=0.05, max_num_seqs=64)
    spec = SamplerSpec(policy_ref(folder), "w", engine, TEMPERATURE, MAX_TOKENS, lora_rank=4, partial_tokens=SLICE)
    found = CountedEngine(VllmSampler(spec), folder)
    watch(found)
    yield found
    found.sampler.close()


def watch(served: CountedEngine) -> None:
    engine = served.sampler._engine
    reset, step = engine.reset_prefix_cache, engine.step

    def watched_reset() -> bool:
        served.num_resets += 1
        return bool(reset()) if served.resets_work else True

    def watched_step() -> list:
        outputs = step()
        served.num_cached += tuple(output.num_cached_tokens for output in outputs if output.finished)
        return outputs

    engine.reset_prefix_cache, engine.step = watched_reset, watched_step


def long_requests(num: int) -> list[SampleRequest]:
    """No two prompts begin alike, so that one finds nothing of another in the cache."""
    random = np.random.default_rng(5)
    return [
        replace(request, prompt_ids=random.integers(EOS + 1, VOCABULARY, size=LONG).astype(np.int32))
        for request in make_requests(num)
    ]


def test_responses_in_slices(served: CountedEngine) -> None:
    adapters = [make_adapter(served.folder, version, seed=version) for version in (1, 2)]
    rollouts, added = in_slices(served.sampler, make_requests(32), adapters)
    # 40 tokens are 2 slices of 16 and one of 8; nothing is made that is not kept.
    assert len(added) == 3 and sum(added) == sum(len(rollout.token_ids) for rollout in rollouts)
    for rollout in rollouts:
        length = len(rollout.token_ids)
        assert rollout.versions.tolist() == [1 if place < SLICE else 2 for place in range(length)]
        eos_at = np.flatnonzero(rollout.token_ids == EOS).tolist()
        if rollout.finish_reason == "stop":
            assert eos_at == [length - 1] and length <= MAX_TOKENS
        else:
            assert (rollout.finish_reason, length, eos_at) == ("length", MAX_TOKENS, [])
    assert {rollout.finish_reason for rollout in rollouts} == {"stop", "length"}
    assert max(largest_gaps(served.folder, adapters, rollouts, TEMPERATURE).values()) < 1e-4
    swapped = [replace(adapter, version=3 - adapter.version) for adapter in adapters]
    assert min(largest_gaps(served.folder, swapped, rollouts, TEMPERATURE).values()) > 0.1


def test_the_cache_of_another_policy_is_never_read(served: CountedEngine) -> None:
    """Whether emptying it works, or vLLM's keys alone keep the two apart."""
    for resets_work, versions in ((True, (11, 12)), (False, (13, 14))):
        adapters = [make_adapter(served.folder, version, seed=version) for version in versions]
        served.resets_work, served.num_resets = resets_work, 0
        served.sampler.load(adapters[0])
        begun = sample(served.sampler, long_requests(8))
        served.num_cached = ()
        second = sample(served.sampler, [rest for rollout in begun if (rest := continuation(rollout))])
        # What the first slice read is not read again; then all of it is, by the new policy.
        assert set(served.num_cached) == {128} and served.num_resets == 1
        served.sampler.load(adapters[1])
        served.num_cached = ()
        third = sample(served.sampler, [rest for rollout in second if (rest := continuation(rollout))])
        assert set(served.num_cached) == {0} and served.num_resets == 2
        assert len(third) > 2 and all(set(rollout.versions) == set(versions) for rollout in third)
        assert max(largest_gaps(served.folder, adapters, third, TEMPERATURE).values()) < 1e-4
    served.resets_work = True


def test_responses_in_slices_are_distributed_as_whole_ones(
    served: CountedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorter = replace(served.sampler._spec, max_tokens=2, partial_tokens=1)
    monkeypatch.setattr(served.sampler, "_spec", shorter)
    served.sampler.serve_base()
    (request,) = make_requests(1)
    assert pair_statistic(served.sampler, served.folder, request, 2000, TEMPERATURE) < statistic_bound()
    # The test would see a second token that is drawn with the first one's noise.
    monkeypatch.setattr("plumbob.rollout.samplers.sampler.partial_seed", lambda request: request.seed)
    assert pair_statistic(served.sampler, served.folder, request, 2000, TEMPERATURE) > 2 * statistic_bound()
