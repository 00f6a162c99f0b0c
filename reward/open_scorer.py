"""From the settings of a reward to its scorer, and what can be checked of it before anything is loaded."""

from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.reward.bert_model import KEY, check_scorer
from plumbob.reward.bert_scorer import BertScorer
from plumbob.reward.ensemble import ENSEMBLE_KEY, EnsembleScorer
from plumbob.reward.scorer import Scorer


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
