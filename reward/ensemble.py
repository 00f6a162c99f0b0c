"""Several reward models as one scorer, which pays less where they disagree."""

import statistics
from collections.abc import Sequence

from configs.roles import Scorer as ScorerSettings
from reward.bert import KEY, BertScorer, check_scorer
from reward.scorer import Score, Scorer

ENSEMBLE_KEY = "reward.ensemble"


class EnsembleScorer:
    """mean - penalty * std of the members' scores, the standard deviation being over the members (divided by k).

    Uncertainty-weighted optimisation (Coste et al. 2023, arXiv 2310.02743), which takes off the variance where this
    takes off its root: so the penalty has no unit, and is the same for rewards of any scale.

    Args:
        members: each with scores of mean 0 and variance 1, or they cannot be compared.
    """

    def __init__(self, members: Sequence[Scorer], penalty: float) -> None:
        self._members, self._penalty = tuple(members), penalty

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """Scores in the order given; their parts are the members' totals `model-0`, `model-1`, ... and the `std`."""
        columns = [[score.total for score in member.score(pairs)] for member in self._members]
        return [self._joined(totals) for totals in zip(*columns, strict=True)]

    def _joined(self, totals: Sequence[float]) -> Score:
        std = statistics.pstdev(totals)
        parts = {f"model-{number}": total for number, total in enumerate(totals)}
        return Score(statistics.fmean(totals) - self._penalty * std, {**parts, "std": std})


def check_scorers(settings: ScorerSettings, section: str = "reward") -> None:
    """What can be told of the reward model, or all models of an ensemble, before they are loaded.

    `section` is the one that the settings are.

    Raises:
        UserError: as `check_scorer`, for the first that cannot be used.
    """
    for name, key in named_models(settings):
        check_scorer(name, settings.normalize, settings.max_tokens, key.replace("reward.", f"{section}.", 1))


def open_scorer(settings: ScorerSettings, device: str) -> Scorer:
    """The scorer of those settings, its models loaded. UserError as `BertScorer`."""
    members = [
        BertScorer(name, settings.batch_size, settings.max_tokens, settings.normalize, device, key)
        for name, key in named_models(settings)
    ]
    return EnsembleScorer(members, settings.uncertainty_penalty) if settings.ensemble else members[0]


def named_models(settings: ScorerSettings) -> list[tuple[str, str]]:
    """Every model with the setting that names it, for error messages."""
    return [(settings.model, KEY), *((name, ENSEMBLE_KEY) for name in settings.ensemble)]
