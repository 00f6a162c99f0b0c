"""What a group of workers may be asked for."""

from typing import Any

import pytest
from pydantic import ValidationError

from plumbob.configs.settings.workers import RolloutSettings


def test_partial_responses_are_shorter_than_whole_ones() -> None:
    assert RolloutSettings(max_tokens=65).partial_tokens is None
    assert RolloutSettings(max_tokens=65, partial_tokens=64).partial_tokens == 64
    with pytest.raises(ValidationError, match=r"rollout\.max_tokens=64 ends them before: set rollout\.partial_tokens"):
        RolloutSettings(max_tokens=64, partial_tokens=64)


@pytest.mark.parametrize("given", [{"engine": {"kind": "transformers"}}, {"tensor_parallel": 2}])
def test_adapters_are_merged_in_vllm_on_one_device(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"rollout\.adapter=merged is for vLLM on one device: set .*adapter=lora"):
        RolloutSettings(adapter="merged", **given)
