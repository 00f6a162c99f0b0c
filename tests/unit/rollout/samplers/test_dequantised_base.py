"""What a sampler has of a base in 4 bits: the learner's floats, in a cache; and how far the stored ones are off."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.configs.settings.tuning.quantization import Nf4Quantization
from plumbob.configs.settings.workers import TransformersEngine
from plumbob.core.errors import UserError
from plumbob.models.files.weight_files import WHOLE
from plumbob.models.policy import PolicyModel
from plumbob.models.tuning.methods import method_of
from plumbob.rollout.rollout_records import Rollout
from plumbob.rollout.samplers.dequantised_base import dequantised
from plumbob.rollout.samplers.open_sampler import open_sampler
from plumbob.rollout.samplers.sampler import SamplerSpec, sample
from tests.support.opened_models import opened_policy, policy_ref
from tests.support.tiny_policy import TEMPERATURE, make_requests, write_policy

NF4 = Nf4Quantization()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "plumbob" / "models"


def gaps(learner: PolicyModel, rollouts: list[Rollout]) -> NDArray[np.float32]:
    """|log pi of the learner - of the sampler| of every token."""
    found = []
    for rollout in rollouts:
        ids = torch.from_numpy(np.concatenate([rollout.request.prompt_ids, rollout.token_ids])).long()[None]
        asked = torch.arange(ids.shape[1])[None] >= len(rollout.request.prompt_ids)
        with learner.eval().role("policy"), torch.no_grad():
            logprobs = learner(ids, torch.ones_like(asked), asked, TEMPERATURE)
        found.append(np.abs(logprobs[asked].numpy() - rollout.logprobs))
    return np.concatenate(found)


def test_the_gap_to_the_learner(folder: str) -> None:
    learner = method_of(LoraTuning(rank=3)).policy(opened_policy(folder, quantization=NF4), ("policy", "reference"), 0)
    spec = SamplerSpec(
        policy_ref(folder, quantization=NF4), "w", TransformersEngine(), TEMPERATURE, max_tokens=12, lora_rank=8
    )
    samplers = open_sampler(spec), open_sampler(replace(spec, model=policy_ref(folder)))
    closed, stored = (gaps(learner, sample(sampler, make_requests(8))) for sampler in samplers)
    assert len(closed) > 50 and len(stored) > 50
    assert closed.max() < 1e-5
    # Two layers whose weights are as far off as 4 bits are: another policy, which no rounding explains.
    assert stored.mean() > 0.05


def test_it_is_written_once_for_each_quantization(folder: str, cache: Path) -> None:
    first = Path(dequantised(policy_ref(folder, quantization=NF4)).name)
    made = (first / WHOLE).stat().st_mtime_ns
    assert first.parent == cache and first.name.startswith(f"{Path(folder).name}-nf4-")
    again = dequantised(policy_ref(folder, quantization=NF4))
    assert (again.name, again.quantization, again.dtype) == (str(first), None, "float32")
    assert (first / WHOLE).stat().st_mtime_ns == made
    others = {
        dequantised(policy_ref(folder, quantization=Nf4Quantization(block_size=128))).name,
        dequantised(policy_ref(folder, "bfloat16", NF4)).name,
        str(first),
    }
    assert len(others) == 3
    assert dequantised(policy_ref(folder)) == policy_ref(folder)


def test_a_cache_that_cannot_be_written(folder: str, cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("a file")
    with pytest.raises(UserError, match=r"policy\.model=.*cannot be written into the cache.*quantised_base=stored"):
        dequantised(policy_ref(folder, quantization=NF4))
