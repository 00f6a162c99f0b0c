"""Models that a stage makes from scratch before its learners start: the settings of the stage then name a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from plumbob.configs.settings.models import EncoderSettings, NewBertSettings, NewLlamaSettings, PretrainedPolicySettings
from plumbob.core.activities import activities
from plumbob.core.disk_errors import naming_file
from plumbob.models.from_scratch import build_bert, build_llama

E = TypeVar("E", bound=EncoderSettings)


def create_policy(
    policy: PretrainedPolicySettings, texts: Sequence[str], folder: Path, seed: int
) -> PretrainedPolicySettings:
    """The settings with the model that they ask for, made in `folder`; as they are where they name one."""
    if not isinstance(policy.model, NewLlamaSettings):
        return policy
    with naming_file(folder), activities.during("making a new model"):
        build_llama(policy.model, texts, folder, seed)
    return policy.model_copy(update={"model": str(folder)})


def create_encoder(encoder: E, texts: Sequence[str], folder: Path, seed: int) -> E:
    """As `create_policy`, of an encoder."""
    if not isinstance(encoder.model, NewBertSettings):
        return encoder
    with naming_file(folder), activities.during("making a new model"):
        build_bert(encoder.model, texts, folder, seed)
    return encoder.model_copy(update={"model": str(folder)})
