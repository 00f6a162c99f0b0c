"""What a run reads, against what learns from it or measures it."""

from typing import Literal

from plumbob.configs.settings.data import EvalDataSettings, PerplexitySettings, PipelineDataSettings
from plumbob.configs.settings.models import EvaluatedPolicySettings
from plumbob.configs.settings.offline_objectives import BradleyTerry, RewardObjective
from plumbob.configs.settings.reward_parts import EnvironmentPart
from plumbob.configs.settings.rewards import RewardGroupSettings
from plumbob.configs.settings.stewardship.bias_checks import BiasCheckSettings
from plumbob.configs.settings.workers import RolloutSettings


def check_feedback_kind(kind: Literal["pairs", "rankings", "scores"], objective: RewardObjective) -> None:
    fitting = {"pairs": "bradley-terry", "rankings": "plackett-luce", "scores": "regression"}[kind]
    if objective.kind != fitting:
        raise ValueError(
            f"reward_training.objective.kind={objective.kind} does not learn from data.{kind}: "
            f"set reward_training.objective.kind={fitting}"
        )


def has_environment_part(reward: RewardGroupSettings | None) -> bool:
    return reward is not None and any(isinstance(part, EnvironmentPart) for part in reward.parts)


def check_environment(rollout: RolloutSettings, reward: RewardGroupSettings | None) -> None:
    if reward is not None and has_environment_part(reward) and rollout.environment is None:
        raise ValueError(
            f"{reward.section}.parts: kind environment is what an environment gives, and there is none: name it as "
            f"rollout.environment.source=file.py:Class"
        )


def check_no_environment(rollout: RolloutSettings, kind: str) -> None:
    if rollout.environment is not None:
        raise ValueError(
            f"rollout.environment in a run of kind {kind}: its prompts' rows, which an environment is opened with, do "
            f"not come so far; use it in a run of kind online or eval"
        )


def check_measured(
    data: EvalDataSettings, policy: EvaluatedPolicySettings | None, perplexity: PerplexitySettings | None
) -> None:
    """Of an evaluation."""
    if data.pairs is None and data.prompts is None:
        raise ValueError(
            "nothing to measure: give data.pairs=FILE for a reward model, "
            "or data.prompts=FILE and policy.model=FOLDER for a policy"
        )
    if data.prompts is not None and policy is None:
        raise ValueError("data.prompts measures a policy: give policy.model=FOLDER too")
    if policy is not None and data.prompts is None:
        raise ValueError("policy.model is measured on prompts: give data.prompts=FILE too")
    if policy is None and perplexity is not None:
        raise ValueError("perplexity.text is measured under a policy: give policy.model=FOLDER too")


def check_scores_pairs(reward: RewardGroupSettings) -> None:
    """Of an evaluation on pairs, which are two texts and no more."""
    if has_environment_part(reward):
        raise ValueError(
            "reward.parts: kind environment is what an episode earns, and the responses of data.pairs are none: "
            "measure it on data.prompts"
        )
    needy = next((part for part in reward.weighted_parts if part.columns), None)
    if needy is not None:
        raise ValueError(
            f"reward.parts: {needy.name} compares with the column '{needy.columns[0]}' of a prompt's row, which "
            f"the pairs of data.pairs do not have: measure it on data.prompts"
        )


def check_bias(bias: BiasCheckSettings | None, reward: RewardGroupSettings | None) -> None:
    """Of a run that measures its reward on texts that are no prompts of its own."""
    if bias is None:
        return
    if reward is None:
        raise ValueError("bias measures a reward, and the run has none: leave bias out, or give reward.model=FOLDER")
    if has_environment_part(reward):
        raise ValueError("reward.parts: kind environment scores no texts, and bias measures on texts: leave bias out")
    needy = next((part for part in reward.weighted_parts if part.columns), None)
    if needy is not None:
        raise ValueError(
            f"reward.parts: {needy.name} compares with the column '{needy.columns[0]}' of a prompt's row, which the "
            f"texts that bias measures on do not have: leave bias out, and measure the reward model by itself with "
            f"plumbob bias reward MODEL"
        )


def check_pipeline_data(data: PipelineDataSettings, reward: RewardGroupSettings, objective: RewardObjective) -> None:
    if (data.toy is None) == (data.pairs is None):
        raise ValueError(
            "a pipeline is about a generated world (data.toy) or preference pairs (data.pairs=FILE): give one"
        )
    check_feedback_kind("pairs", objective)
    if isinstance(objective, BradleyTerry) and objective.use_margin:
        raise ValueError(
            "reward_training.objective.use_margin=true: the pairs of a pipeline carry no margin; "
            "set it to false, or train the reward model in a reward run of its own"
        )
    needy = next((part for part in reward.weighted_parts if part.columns), None)
    if needy is not None and data.prompts is None:
        raise ValueError(
            f"reward.parts: {needy.name} needs the column '{needy.columns[0]}' of the prompts' rows, and no file "
            f"has the prompts of this pipeline: give them with their rows, as data.prompts=FILE"
        )
