"""What a group of workers may be asked for."""

import pytest
from pydantic import ValidationError

from plumbob.configs.settings.workers import RolloutSettings


def test_partial_responses_are_shorter_than_whole_ones() -> None:
    assert RolloutSettings(max_tokens=65).partial_tokens is None
    assert RolloutSettings(max_tokens=65, partial_tokens=64).partial_tokens == 64
    with pytest.raises(ValidationError, match=r"rollout\.max_tokens=64 ends them before: set rollout\.partial_tokens"):
        RolloutSettings(max_tokens=64, partial_tokens=64)
