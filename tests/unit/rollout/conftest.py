"""A tiny policy and adapters for it, and what samples from it with transformers."""

import pytest

from plumbob.configs.settings.workers import TransformersEngine
from plumbob.models.adapter import Adapter
from plumbob.rollout.samplers.open_sampler import open_sampler
from plumbob.rollout.samplers.sampler import Sampler, SamplerSpec
from tests.support.opened_models import policy_ref
from tests.support.tiny_policy import TEMPERATURE, make_adapter, write_policy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def spec(folder: str) -> SamplerSpec:
    return SamplerSpec(policy_ref(folder), "rollout-0", TransformersEngine(), TEMPERATURE, max_tokens=32, lora_rank=4)


@pytest.fixture
def sampler(spec: SamplerSpec) -> Sampler:
    return open_sampler(spec)


@pytest.fixture(scope="module")
def adapters(folder: str) -> list[Adapter]:
    return [make_adapter(folder, version, seed=version) for version in range(3)]
