"""Several parts as one reward: their weighted sum, which a gate can make 0."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plumbob.configs.settings.rewards import WeightedPart
from plumbob.data.reading.field_values import listed
from plumbob.data.records import RowError
from plumbob.reward.scorer import Opening, Score, Scorer, ScoreRequest


@dataclass(frozen=True)
class CombinedScorer:
    """sum_k w_k v_k of the parts' values v, or 0 where the value of a gate is 0.

    Attributes:
        parts: each with its scorer, whose total is the part's value.
    """

    parts: Sequence[tuple[WeightedPart, Scorer]]

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Scores in the order of the requests; their parts are the values, and as `NAME/DETAIL` what is behind them."""
        columns = [scorer.score(requests) for _, scorer in self.parts]
        return [self._combined(values) for values in zip(*columns, strict=True)]

    def _combined(self, values: Sequence[Score]) -> Score:
        found = list(zip((part for part, _ in self.parts), values, strict=True))
        shut_gate = next((part.name for part, value in found if part.is_gate and value.total == 0), None)
        weighted = {part.name: part.weight * value.total for part, value in found}
        total = sum(weighted.values()) if shut_gate is None else 0.0
        parts = {part.name: value.total for part, value in found}
        parts |= {f"{part.name}/{name}": detail for part, value in found for name, detail in value.parts.items()}
        failures = {part.name: reason for part, value in found for reason in value.failures.values()}
        return Score(total, parts, failures, weighted, shut_gate)


def combined_opening(parts: Sequence[tuple[WeightedPart, Opening]]) -> Opening:
    """Each part is checked, and opened, as it would be alone."""

    def check() -> None:
        for _, opening in parts:
            opening.check()

    def check_row(row: Mapping[str, Any]) -> None:
        for part, opening in parts:
            missing = next((column for column in part.columns if column not in row), None)
            if missing is not None:
                raise RowError(
                    f"{part.name} needs the column '{missing}' of the prompt's row, which has {listed(row)}; "
                    f"a null counts as missing"
                )
            try:
                opening.check_row(row)
            except RowError as error:
                raise RowError(f"{part.name}: {error}") from error

    return Opening(
        check,
        lambda device: CombinedScorer([(part, opening.open(device)) for part, opening in parts]),
        check_row,
    )
