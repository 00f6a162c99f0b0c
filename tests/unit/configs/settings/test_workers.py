"""What a group of workers may be asked for."""

from typing import Any

import pytest
from pydantic import ValidationError

from plumbob.configs.settings.workers import LearnerSettings, RolloutSettings


def test_partial_responses_are_shorter_than_whole_ones() -> None:
    assert RolloutSettings(max_tokens=65).partial_tokens is None
    assert RolloutSettings(max_tokens=65, partial_tokens=64).partial_tokens == 64
    with pytest.raises(ValidationError, match=r"rollout\.max_tokens=64 ends them before: set rollout\.partial_tokens"):
        RolloutSettings(max_tokens=64, partial_tokens=64)


@pytest.mark.parametrize(
    "given",
    [
        {"engine": {"kind": "transformers"}},
        {"tensor_parallel": 2},
        {"engine": {"kind": "vllm", "enforce_eager": False}},
    ],
)
def test_adapters_are_merged_in_vllm_on_one_device(given: dict[str, Any]) -> None:
    with pytest.raises(
        ValidationError, match=r"merged is for vLLM on one device, uncompiled: set .* or .*adapter=lora"
    ):
        RolloutSettings(adapter="merged", **given)


def test_one_rank_has_nobody_to_share_with_but_keeps_the_float32_copy_of_other_weights() -> None:
    one, two = LearnerSettings(), LearnerSettings(num_workers=2)
    assert [one.resolved_zero_stage(True), one.resolved_zero_stage(False)] == [0, 2]
    assert [two.resolved_zero_stage(True), two.resolved_zero_stage(False)] == [2, 2]
    assert LearnerSettings(zero_stage=3).resolved_zero_stage(True) == 3
    assert LearnerSettings(zero_stage=0, num_workers=2).resolved_zero_stage(False) == 0


def test_what_is_offloaded_is_shared_first() -> None:
    assert LearnerSettings(offload_optimizer="cpu").resolved_zero_stage(True) == 2
    assert LearnerSettings(offload_params="cpu").resolved_zero_stage(True) == 3
    assert LearnerSettings(offload_optimizer="cpu", zero_stage=1).resolved_zero_stage(True) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"offload_optimizer": "cpu", "zero_stage": 0},
            r"zero_stage=0 shares nothing: leave learner\.zero_stage out, or",
        ),
        ({"offload_params": "cpu", "zero_stage": 2}, r"zero_stage=2 keeps them: leave .* out, or set it to 3"),
        ({"offload_reference": "cpu", "zero_stage": 3}, r"set learner\.offload_params=cpu instead"),
        ({"offload_params": "nvme"}, r"libaio .* set learner\.offload_params=cpu, share the state among more ranks"),
        ({"offload_optimizer": "cpu", "optimizer": "adamw_8bit"}, r"optimizer=adamw_8bit .* leave out one of the two"),
    ],
)
def test_what_cannot_be_offloaded_is_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LearnerSettings(**given)
