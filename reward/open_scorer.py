"""From a reward of the settings to its scorer; a part of its own kind is opened by the module of that name."""

from collections.abc import Sequence
from pathlib import Path

from plumbob.configs.settings.rewards import CombinedReward, EnsembleReward, ModelReward, Reward, RuleReward
from plumbob.core.errors import UserError
from plumbob.data.prompts import EncodedPrompt
from plumbob.data.reading.field_values import shown
from plumbob.data.records import Prompt, RowError
from plumbob.reward.combined import combined_opening
from plumbob.reward.ensemble import ensemble_opening
from plumbob.reward.open_part import part_opening
from plumbob.reward.reward_models.bert_model import check_reward_model, is_decoder, load_reward_model
from plumbob.reward.reward_models.bert_scorer import BertScorer
from plumbob.reward.reward_models.decoder_scorer import DecoderScorer
from plumbob.reward.rules.callable_rule import RuleScorer
from plumbob.reward.scorer import Opening, Scorer


def check_reward(reward: Reward) -> None:
    """What can be told of a reward before anything of it is loaded.

    Raises:
        UserError: it cannot be used; names the setting that it comes from.
    """
    _opening(reward).check()


def check_rows(rewards: Sequence[Reward], prompts: Sequence[Prompt | EncodedPrompt], file: str) -> None:
    """Whether each prompt's row has what the rewards need of it to score responses.

    Args:
        file: in which the prompts are.

    Raises:
        UserError: one has not; names the part of the reward, the column, and the first such prompt.
    """
    openings = [_opening(reward) for reward in rewards]
    faults = [(prompt, fault) for prompt in prompts for opening in openings if (fault := _row_fault(opening, prompt))]
    if faults:
        prompt, fault = faults[0]
        raise UserError(
            f"{file}: the reward cannot score responses to {len(faults):,} of {len(prompts):,} prompts, such as "
            f"{shown(prompt.text)}: the part {fault}. Fix these rows, or the part's setting `column`"
        )


def _row_fault(opening: Opening, prompt: Prompt | EncodedPrompt) -> str | None:
    try:
        opening.check_row(prompt.row)
    except RowError as error:
        return str(error)
    return None


def open_scorer(reward: Reward, device: str, folder: Path | None = None) -> Scorer:
    """The scorer of a reward, its models loaded. UserError as `check_reward`.

    Args:
        folder: where answers that were paid for are kept, for all scorers; None keeps them with the scorer.
    """
    return _opening(reward, folder).open(device)


def _opening(reward: Reward, folder: Path | None = None) -> Opening:
    match reward:
        case ModelReward():
            return Opening(lambda: check_reward_model(reward), lambda device: _model_scorer(reward, device))
        case EnsembleReward(members, penalty):
            return ensemble_opening([_opening(member, folder) for member in members], penalty)
        case CombinedReward(parts):
            return combined_opening([(part, _opening(part.reward, folder)) for part in parts])
        case RuleReward(rule):
            return Opening(lambda: None, lambda device: RuleScorer(rule))
        case _:
            return part_opening(reward, folder)


def _model_scorer(reward: ModelReward, device: str) -> Scorer:
    loaded = load_reward_model(reward.model)
    scorer = DecoderScorer if is_decoder(loaded.model.config) else BertScorer
    return scorer(reward, loaded, device)
