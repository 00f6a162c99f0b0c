"""What every part of a reward has, and the parts that are a trained reward model and what an environment gives."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from plumbob.configs.base import BatchSize, Coefficient, ModelName, NumTokens, Settings
from plumbob.configs.settings.models import ModelRef


class PartSettings(Settings):
    """What each part has, whatever it is."""

    name: Annotated[str, Field(min_length=1, max_length=60)] | None = None
    """Of its values in the journal and the metrics; None takes the kind's."""
    weight: Coefficient = 1.0
    """What its value counts in the sum."""
    is_gate: bool = False
    """A value of 0 makes the whole reward 0; with `weight=0` it does nothing else."""

    batch_size: BatchSize = 32
    """Responses that it scores together. Changes memory and speed, never a score."""

    @property
    def label(self) -> str:
        """What it is called: its name, or its kind."""
        return self.name or str(type(self).model_fields["kind"].default)

    models: ClassVar[tuple[ModelRef, ...]] = ()
    """What every scorer's host must have."""

    keeps_answers: ClassVar[bool] = False
    """Whether its answers cost: none is asked for twice in a run, whatever becomes of the scorer that asked."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Of the prompts' rows, those that it cannot score without."""
        return ()

    @property
    def reads_rows(self) -> bool:
        """Whether it is given the prompts' rows."""
        return bool(self.columns)


class ModelPart(PartSettings):
    """A trained reward model: a sequence classifier with one output."""

    kind: Literal["model"] = "model"
    model: ModelName
    """A sequence-classification folder with one output, or its hub name."""
    max_tokens: NumTokens = 256
    """Of prompt and response together, the reward model's own tokens."""
    normalize: bool = True
    """Use the calibration stored with the model: mean 0 and variance 1 under the policy that it was calibrated on."""


class EnvironmentPart(PartSettings):
    """What the environment of the rollouts gives, the sum over an episode's turns (`rollout.environment`).

    Estimators that look at each token (`gae`, `reinforce++`) see each turn's reward at the turn's last one.
    """

    kind: Literal["environment"] = "environment"


PlainPart = EnvironmentPart
"""Parts that are of no family. A new one is a variant here, and `KIND_part.py` in `reward/parts/`, which opens it."""
