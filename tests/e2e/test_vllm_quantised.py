"""vLLM beside a learner of 4 bits: how far apart their log-probs are, with the learner's floats and the stored ones."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from plumbob.configs.settings.tuning.quantization import Nf4Quantization
from plumbob.configs.settings.workers import AdapterServing, VllmEngine
from plumbob.models.adapter import save_adapter
from plumbob.rollout.rollout_records import Rollout
from plumbob.rollout.samplers.open_sampler import open_sampler
from plumbob.rollout.samplers.sampler import SamplerSpec, sample
from tests.support.opened_models import policy_ref
from tests.support.plain_transformers import plain_logprobs
from tests.support.tiny_policy import TEMPERATURE, make_adapter, make_requests, write_policy


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def sampled(spec: SamplerSpec, folder: str) -> list[Rollout]:
    sampler = open_sampler(spec)
    try:
        sampler.load(make_adapter(folder, 1, seed=1))
        return sample(sampler, make_requests(16))
    finally:
        sampler.close()


def gaps(folder: str, adapter: Path, rollouts: list[Rollout]) -> NDArray[np.float32]:
    """To plain transformers and peft on the base in 4 bits, of every token."""
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    base = AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(adapter)).train()  # No dropout, and products in float32.
    found = [
        np.abs(plain_logprobs(model, r.request.prompt_ids, r.token_ids, TEMPERATURE) - r.logprobs) for r in rollouts
    ]
    return np.concatenate(found)


@pytest.mark.parametrize("serving", ["merged", "lora"])
def test_the_gap_to_a_learner_of_4_bits(serving: AdapterServing, tmp_path: Path) -> None:
    folder = write_policy(tmp_path / "policy")
    save_adapter(make_adapter(folder, 1, seed=1), tmp_path / "adapter")
    engine = VllmEngine(kv_cache_gib=0.05, max_num_seqs=64)
    spec = SamplerSpec(
        policy_ref(folder, quantization=Nf4Quantization()),
        "rollout-0",
        engine,
        TEMPERATURE,
        max_tokens=24,
        lora_rank=8 if serving == "lora" else 0,
        adapter=serving,
    )
    closed = gaps(folder, tmp_path / "adapter", sampled(spec, folder))
    stored = gaps(folder, tmp_path / "adapter", sampled(replace(spec, model=policy_ref(folder)), folder))
    # Merged in float32 on the learner's floats: what is left is the order of sums.
    assert closed.max() < 3e-5
    assert stored.mean() > 0.05
