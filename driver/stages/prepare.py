"""From the settings of a run to its stage: each kind of run has a module beside this one."""

from typing import assert_never

from plumbob.configs.runs import (
    DpoRun,
    KtoRun,
    OnlineRun,
    PretrainEncoderRun,
    PretrainRun,
    RewardRun,
    SftRun,
)
from plumbob.core.activities import activities
from plumbob.driver.stages import online_stage, preference_stage, pretrain_stage, reward_stage, supervised_stage
from plumbob.driver.stages.online_stage import Rule
from plumbob.driver.stages.stage import PreparedStage

StageRun = PretrainRun | PretrainEncoderRun | SftRun | RewardRun | DpoRun | KtoRun | OnlineRun
"""The kinds of run that are one stage of training."""


@activities.during("reading the data and the model")
def prepare(run: StageRun, rule: Rule | None = None) -> PreparedStage:
    """Read and check a stage's input. Raises UserError; starts and writes nothing.

    `rule` scores the responses of an online run a second time, where the run names no second reward model.
    """
    match run:
        case PretrainRun():
            return pretrain_stage.prepare(run)
        case PretrainEncoderRun():
            return pretrain_stage.prepare_encoder(run)
        case SftRun():
            return supervised_stage.prepare(run)
        case DpoRun():
            return preference_stage.prepare(run)
        case KtoRun():
            return preference_stage.prepare_labelled(run)
        case RewardRun():
            return reward_stage.prepare(run)
        case OnlineRun():
            return online_stage.prepare(run, rule)
        case _:
            assert_never(run)
