"""The search for the smallest rank: which ranks are measured, and where it ends."""

from typing import Any

import pytest

from plumbob.core.errors import UserError
from plumbob.driver.comparison.compared_methods import ComparedMethod
from plumbob.driver.comparison.comparison_row import ComparisonRow, NotCompared
from plumbob.driver.comparison.smallest_rank import RANKS, smallest_rank


def row(method: str, gain: float, num_trained: int = 0) -> ComparisonRow:
    return ComparisonRow(
        method=method,
        learning_rate=1e-4,
        num_trained=num_trained,
        peak_memory_gib=1.0,
        expected_memory_gib=None,
        records_per_s=1.0,
        heldout_loss_before=2.0,
        heldout_loss=2.0 - gain,
        retained_growth=None,
        exported_mib=1.0,
        seconds=1.0,
        wh_per_1000_samples=None,
        folder="",
        curve=(),
    )


class MeasuredGains:
    """Gains by method, in the place of runs; a method without one is refused."""

    def __init__(self, gains: dict[str, float]) -> None:
        self.gains, self.asked = gains, list[str]()

    def measure(self, method: ComparedMethod) -> Any:
        self.asked.append(method.name)
        if method.name not in self.gains:
            return NotCompared(method.name, "too large")
        return row(method.name, self.gains[method.name], num_trained=len(self.asked))


def test_it_ends_at_the_first_rank_that_reaches_the_share() -> None:
    # 90% of a gain of 1 is 0.9: rank 2 falls short, rank 4 reaches it, and rank 8 is not tried. Rank 1 is refused.
    measured: Any = MeasuredGains({"full": 1.0, "lora-rank-2": 0.89, "lora-rank-4": 0.91, "lora-rank-8": 1.0})
    found = smallest_rank(measured, 0.9)
    assert measured.asked == ["full", "lora-rank-1", "lora-rank-2", "lora-rank-4"]
    assert found.as_dict() == {"share": 0.9, "full_gain": pytest.approx(1.0), "smallest": "lora-rank-4"}
    assert "lora-rank-4 is the smallest that reaches 90% of full fine-tuning's gain of 1" in found.sentence()


def test_where_no_rank_reaches_it_that_is_said() -> None:
    measured: Any = MeasuredGains({"full": 1.0} | {f"lora-rank-{rank}": 0.5 for rank in RANKS})
    found = smallest_rank(measured, 0.9)
    assert found.found is None and found.sentence().startswith("no rank up to 64 reaches 90%")


@pytest.mark.parametrize(("gains", "wanted"), [({}, "too large"), ({"full": -0.1}, "give several --rates")])
def test_without_a_gain_of_full_fine_tuning_there_is_nothing_to_reach(gains: dict[str, float], wanted: str) -> None:
    measured: Any = MeasuredGains(gains)
    with pytest.raises(UserError, match=wanted):
        smallest_rank(measured, 0.9)
