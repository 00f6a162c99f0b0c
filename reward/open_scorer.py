"""From the settings of a reward to its scorer, and what can be checked of it before anything is loaded."""

from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.reward.bert_model import check_scorer
from plumbob.reward.bert_scorer import BertScorer
from plumbob.reward.ensemble import EnsembleScorer
from plumbob.reward.scorer import Scorer


def check_scorers(settings: ScorerSettings, section: str = "reward") -> None:
    """What can be told of the reward model, or all models of an ensemble, before they are loaded.

    `section` is the one that the settings are.

    Raises:
        UserError: as `check_scorer`, for the first that cannot be used.
    """
    for ref in settings.refs(section):
        check_scorer(ref.name, settings.normalize, settings.max_tokens, ref.setting)


def open_scorer(settings: ScorerSettings, section: str, device: str) -> Scorer:
    """The scorer of the settings that are `section`, its models loaded. UserError as `BertScorer`."""
    members = [
        BertScorer(ref.name, settings.batch_size, settings.max_tokens, settings.normalize, device, ref.setting)
        for ref in settings.refs(section)
    ]
    return EnsembleScorer(members, settings.uncertainty_penalty) if settings.ensemble else members[0]
