"""A tiny policy and adapters for it, and what samples from it with transformers."""

import pytest

from configs.roles import TransformersEngine
from models.adapters import Adapter
from rollout.sampler import Sampler, SamplerSpec, open_sampler
from tests.tiny_policy import TEMPERATURE, make_adapter, write_policy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def spec(folder: str) -> SamplerSpec:
    return SamplerSpec(folder, "rollout-0", TransformersEngine(), "float32", TEMPERATURE, max_tokens=32, lora_rank=4)


@pytest.fixture
def sampler(spec: SamplerSpec) -> Sampler:
    return open_sampler(spec)


@pytest.fixture(scope="module")
def adapters(folder: str) -> list[Adapter]:
    return [make_adapter(folder, version, seed=version) for version in range(3)]
