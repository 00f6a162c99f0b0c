"""The number of learner ranks and the ZeRO stage change memory and speed, not the result."""

import pytest

from tests.e2e.conftest import Stage
from tests.small_run import Left


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_two_ranks_learn_what_one_learns(
    stage: Stage, sft_settings: dict[str, object], sft_lora: Left, zero_stage: int
) -> None:
    two = stage(
        f"sft-zero{zero_stage}",
        "sft",
        sft_settings,
        # 6 rows a rank and 4 in a micro-batch: neither cut is the one rank's own.
        {"learner.num_workers": 2, "learner.zero_stage": zero_stage, "learner.micro_batch_size": 4},
    )
    assert len(two.untimed) == len(sft_lora.untimed) == 5
    for ours, theirs in zip(two.untimed, sft_lora.untimed, strict=True):
        assert set(ours["metrics"]) == set(theirs["metrics"])
        for name, value in theirs["metrics"].items():
            assert ours["metrics"][name] == pytest.approx(value, rel=1e-3, abs=1e-4), (ours["step"], name)
    heldout = [left.summary["stages"]["sft"]["heldout_loss"] for left in (two, sft_lora)]
    assert heldout[0] == pytest.approx(heldout[1], rel=1e-3)
