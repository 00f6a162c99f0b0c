"""Episodes on vLLM: what it reads is what transformers would, and it continues from its prefix cache."""

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from plumbob.configs.settings.programs.environments import EnvironmentSettings
from plumbob.configs.settings.workers import VllmEngine
from plumbob.data.texts.chat_text import PLAIN_CHAT_TEMPLATE
from plumbob.rollout.episodes.episode_sampler import with_environment
from plumbob.rollout.samplers.sampler import SamplerSpec, sample
from plumbob.rollout.samplers.vllm.vllm_sampler import VllmSampler
from tests.support.opened_models import policy_ref
from tests.support.plain_transformers import load_plain, plain_logprobs
from tests.support.tiny_policy import TEMPERATURE, make_requests, write_policy

ENVIRONMENTS = Path(__file__).parents[1] / "support/echo_environments.py"


def test_it_continues_behind_an_answer_from_its_prefix_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_policy(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    settings = EnvironmentSettings(source=f"{ENVIRONMENTS}:Echo")
    engine = VllmEngine(kv_cache_gib=0.05, max_num_seqs=32)
    spec = SamplerSpec(policy_ref(folder), "rollout-0", engine, TEMPERATURE, 200, 4, environment=settings)
    vllm = VllmSampler(spec)
    cached: list[int] = []
    step = vllm._engine.step

    def watched_step() -> list[object]:
        outputs = step()
        cached.extend(output.num_cached_tokens or 0 for output in outputs)
        return list(outputs)

    monkeypatch.setattr(vllm._engine, "step", watched_step)
    sampler = with_environment(vllm, spec)
    try:
        rollouts = sample(sampler, make_requests(24))
    finally:
        monkeypatch.undo()
        sampler.close()
    model = load_plain(folder)
    answered = [one for one in rollouts if one.episode is not None and len(one.episode.turns) > 1]
    assert answered, "no episode had a second turn"
    for rollout in answered:
        expected = plain_logprobs(model, rollout.request.prompt_ids, rollout.token_ids, TEMPERATURE)
        assert np.abs(expected - rollout.logprobs)[rollout.action_mask].max() < 1e-4
    # Prompts have 9 tokens at most: a whole block that is there already is of a turn before.
    assert max(cached) > 0
