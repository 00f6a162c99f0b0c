"""Episodes on vLLM: what it reads is what transformers would, and it continues from its prefix cache."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from transformers import AutoTokenizer

from plumbob.configs.settings.programs.environments import EnvironmentSettings
from plumbob.configs.settings.workers import VllmEngine
from plumbob.data.texts.chat_text import PLAIN_CHAT_TEMPLATE
from plumbob.models.adapter import save_adapter
from plumbob.rollout.episodes.episode_sampler import EpisodeSampler, with_environment
from plumbob.rollout.rollout_records import Rollout, SampleRequest
from plumbob.rollout.samplers.sampler import BASE_VERSION, SamplerSpec, sample
from plumbob.rollout.samplers.vllm.vllm_sampler import VllmSampler
from tests.support.opened_models import policy_ref
from tests.support.plain_transformers import load_plain, plain_logprobs
from tests.support.tiny_policy import TEMPERATURE, make_adapter, make_requests, write_policy

ENVIRONMENTS = Path(__file__).parents[1] / "support/echo_environments.py"
NUM_EPISODES = 24


class TurnRead(NamedTuple):
    """What vLLM read before a turn. Attributes: num_before: tokens of the response. version: that makes the turn."""

    num_before: int
    num_cached: int
    version: int


@dataclass
class WatchedEpisodes:
    """Attributes: folder: of the base model. reads: of each episode's turns, by the episode's group, in order."""

    folder: str
    vllm: VllmSampler
    sampler: EpisodeSampler
    reads: dict[str, list[TurnRead]] = field(default_factory=dict)

    def requests(self, name: str) -> list[SampleRequest]:
        return [replace(one, group_id=f"{name}{one.group_id}") for one in make_requests(NUM_EPISODES)]

    def watch(self) -> None:
        step = self.vllm._engine.step

        def watched_step() -> list[Any]:
            outputs = list(step())
            for output in outputs:
                response = self.vllm._running[output.request_id]
                before = len(response.request.partial.token_ids)
                of_episode = self.reads.setdefault(response.request.group_id, [])
                if not of_episode or of_episode[-1].num_before != before:
                    of_episode.append(TurnRead(before, output.num_cached_tokens or 0, response.version))
            return outputs

        self.vllm._engine.step = watched_step

    def check(self, rollouts: list[Rollout], models: dict[int, Any]) -> int:
        """Each token is what its version's model makes of the tokens before it, and what one version has read in a turn
        it does not read again in the next. How often that was something."""
        block = int(self.vllm._engine.vllm_config.cache_config.block_size)
        num_hits = 0
        for rollout in rollouts:
            expected = np.zeros(len(rollout.token_ids))
            for version in set(rollout.versions[rollout.action_mask].tolist()):
                ids = rollout.request.prompt_ids, rollout.token_ids
                by_version = plain_logprobs(models[version], *ids, TEMPERATURE)
                expected = np.where(rollout.versions == version, by_version, expected)
            assert np.abs(expected - rollout.logprobs)[rollout.action_mask].max() < 1e-4
            assert rollout.episode is not None
            reads = self.reads[rollout.request.group_id]
            # One request for each turn, but for a turn of no token.
            assert [read.num_before for read in reads] == starts(rollout)
            for turn, before, read in zip(rollout.episode.turns, reads, reads[1:], strict=False):
                # All but the turn's last token, which was sampled and never read.
                num_read = len(rollout.request.prompt_ids) + turn.end
                whole_blocks = num_read // block * block if before.version == read.version else 0
                assert read.num_cached == whole_blocks
                num_hits += whole_blocks > 0
        return num_hits


def starts(rollout: Rollout) -> list[int]:
    """Where each turn begins: at the response's first token, and behind what the policy did not write."""
    is_start = rollout.action_mask & ~np.concatenate([[False], rollout.action_mask[:-1]])
    found: list[int] = np.flatnonzero(is_start).tolist()
    return found


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedEpisodes]:
    folder = write_policy(tmp_path_factory.mktemp("policy"), max_positions=1024)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    settings = EnvironmentSettings(source=f"{ENVIRONMENTS}:Echo", arguments={"num_turns": 4})
    engine = VllmEngine(kv_cache_gib=0.1, max_num_seqs=32)
    spec = SamplerSpec(policy_ref(folder), "rollout-0", engine, TEMPERATURE, 900, 4, environment=settings)
    vllm = VllmSampler(spec)
    sampler = with_environment(vllm, spec)
    assert isinstance(sampler, EpisodeSampler)
    found = WatchedEpisodes(folder, vllm, sampler)
    found.watch()
    yield found
    sampler.close()


@pytest.fixture(scope="module")
def adapted(watched: WatchedEpisodes, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    """Models of versions 0 and 1, the first of which is loaded."""
    models = {}
    for version in (0, 1):
        folder = tmp_path_factory.mktemp("adapter")
        save_adapter(make_adapter(watched.folder, version, seed=version), folder)
        models[version] = load_plain(str(folder))
    return models


def test_it_continues_behind_an_answer_from_its_prefix_cache(watched: WatchedEpisodes) -> None:
    rollouts = sample(watched.sampler, watched.requests("base"))
    assert watched.check(rollouts, {BASE_VERSION: load_plain(watched.folder)}) >= 10


def test_so_does_a_version_that_is_an_adapter(watched: WatchedEpisodes, adapted: dict[int, Any]) -> None:
    watched.sampler.load(make_adapter(watched.folder, 0, seed=0))
    rollouts = sample(watched.sampler, watched.requests("adapter"))
    assert watched.check(rollouts, adapted) >= 10


def test_a_new_version_reads_an_episode_anew(watched: WatchedEpisodes, adapted: dict[int, Any]) -> None:
    """What another version has computed of the same tokens is none of its own."""
    watched.sampler.load(make_adapter(watched.folder, 0, seed=0))
    rollouts: list[Rollout] = []
    watched.sampler.submit(watched.requests("mixed"))
    while all(len(reads) < 2 for name, reads in watched.reads.items() if name.startswith("mixed")):
        rollouts += watched.sampler.poll()
    watched.sampler.load(make_adapter(watched.folder, 1, seed=1))
    rollouts += watched.sampler.run_to_completion()
    assert len(rollouts) == NUM_EPISODES
    mixed = [one for one in rollouts if set(one.versions[one.action_mask].tolist()) == {0, 1}]
    assert len(mixed) >= 5, "too few episodes continued under another version"
    watched.check(rollouts, adapted)
