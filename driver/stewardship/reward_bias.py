"""The bias of a trained reward model, measured in this process (`reward_bias`)."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from plumbob.configs.settings.models import REWARD_MODEL, ModelRef
from plumbob.configs.settings.rewards import ModelReward
from plumbob.configs.settings.stewardship.bias_checks import BiasCheckSettings
from plumbob.core.errors import UserError
from plumbob.driver.run_folder.folder import RUNS
from plumbob.reward.bias.bias_probe import BiasProbe, MeasuredBias
from plumbob.reward.open_scorer import check_reward, open_scorer


@dataclass(frozen=True)
class RewardBiasOptions:
    """How it is measured; as the settings of the same names.

    Attributes:
        bound: of a mean difference; None of none.
    """

    texts: str | None = None
    terms: str | None = None
    max_texts: int = 2000
    max_tokens: int = 256
    batch_size: int = 32
    is_calibrated: bool = True
    bound: float | None = None


def reward_bias(model: str, options: RewardBiasOptions) -> MeasuredBias:
    """Of a reward model's folder, a hub name, or the folder or name of the run that trained it.

    Raises:
        UserError: it cannot be used, a file cannot be read, or no text names a group.
    """
    ref = ModelRef(find_reward_model(model), REWARD_MODEL)
    reward = ModelReward(ref, options.batch_size, options.max_tokens, options.is_calibrated)
    try:
        check_reward(reward)
    except UserError as error:
        raise UserError(f"{error} (here as --raw, --max-tokens)") from error
    settings = BiasCheckSettings(texts=options.texts, terms=options.terms, max_texts=options.max_texts)
    probe = BiasProbe(settings, reward)
    found = probe.measured(open_scorer(reward, "cuda" if torch.cuda.is_available() else "cpu"))
    return replace(found, bound=options.bound)


def find_reward_model(text: str) -> str:
    """Where the reward model is that a person means: the text itself, or in the folder of a run."""
    for run in (Path(text).expanduser(), RUNS / text):
        for folder in (run, run / "reward_model", run / "reward" / "reward_model"):
            if (folder / "config.json").is_file():
                return str(folder)
    return text
