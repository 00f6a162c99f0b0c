"""From scores of texts that differ in terms alone to differences between groups, with intervals (`GroupDifference`)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbob.core.noise.differences import MIN_PROMPTS, MeasuredMetric, difference, larger_than_noise
from plumbob.core.noise.power import cases_needed, smallest_seen
from plumbob.data.bias.term_pairs import Contrast
from plumbob.data.bias.term_swaps import Counterfactual


@dataclass(frozen=True)
class GroupDifference:
    """The first group's texts less the second's, which are the same but for the groups' terms.

    Attributes:
        mean: over cases, each the mean of its texts: those to one prompt are one case.
        ci95: by Student's t over the cases; None of fewer than five, or of differences without any spread.
        is_real: larger than the noise, by Holm's procedure over all contrasts measured together.
        num_mixed: texts that name both groups, of which nothing can be told.
        num_needed: cases of which a difference as large is seen four times in five; None where it is 0, or its spread
            is not known.
        seen_from: the smallest difference that so many cases show four times in five; None as above.
    """

    contrast: Contrast
    mean: float
    ci95: tuple[float, float] | None
    is_real: bool
    num_texts: int
    num_cases: int
    num_mixed: int = 0
    num_needed: int | None = None
    seen_from: float | None = None

    def as_dict(self) -> dict[str, Any]:
        own = {name: value for name, value in asdict(self).items() if name != "contrast"}
        return asdict(self.contrast) | own | {"ci95": None if self.ci95 is None else list(self.ci95)}


def by_contrast(differences: Sequence[GroupDifference]) -> dict[str, dict[str, Any]]:
    """As a run's summary has them: numbers by name, each with its interval beside it."""
    found = {}
    for one in differences:
        interval = {} if one.ci95 is None else {"difference_ci95": list(one.ci95)}
        counts = {"num_texts": one.num_texts, "num_cases": one.num_cases, "num_mixed": one.num_mixed}
        found[str(one.contrast)] = {"difference": one.mean, **interval, "is_real": one.is_real, **counts}
    return found


def group_differences(
    pairs: Sequence[Counterfactual],
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    num_mixed: Mapping[Contrast, int] | None = None,
) -> tuple[GroupDifference, ...]:
    """Of each contrast that there are pairs of, in their order.

    Args:
        first, second: [pairs], the scores of each pair's two texts.
    """
    indices: dict[Contrast, list[int]] = {}
    for index, pair in enumerate(pairs):
        indices.setdefault(pair.contrast, []).append(index)
    sides = {
        contrast: tuple(_by_case([pairs[index].case for index in own], scores[own]) for scores in (first, second))
        for contrast, own in indices.items()
    }
    found = [difference(*(MeasuredMetric.of_prompts(side) for side in both)) for both in sides.values()]
    results = []
    for (contrast, (own, other)), one, is_real in zip(sides.items(), found, larger_than_noise(found), strict=True):
        spread = float(np.std([own[case] - other[case] for case in own], ddof=1)) if len(own) >= MIN_PROMPTS else 0.0
        results.append(
            GroupDifference(
                contrast,
                one.value,
                None if one.low is None or one.high is None else (one.low, one.high),
                is_real,
                len(indices[contrast]),
                len(own),
                (num_mixed or {}).get(contrast, 0),
                cases_needed(spread, one.value) if spread else None,
                smallest_seen(spread, len(own)) if spread else None,
            )
        )
    return tuple(results)


def _by_case(cases: Sequence[str], scores: NDArray[np.float64]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for case, score in zip(cases, scores.tolist(), strict=True):
        found.setdefault(case, []).append(score)
    return {case: float(np.mean(values)) for case, values in found.items()}
