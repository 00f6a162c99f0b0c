"""The base class of all settings, and what the type of a field says of its meaning."""

from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")


class Settings(BaseModel):
    """A frozen group of settings; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


@dataclass(frozen=True)
class IsModel:
    """The text names a model."""


@dataclass(frozen=True)
class IsFile:
    """The text names files with records."""


@dataclass(frozen=True)
class MayChange:
    """Another value changes no more of a run's result than the rounding of sums."""


ModelName = Annotated[str, IsModel()]
"""A Hugging Face folder, a PEFT adapter folder or a hub name. It becomes absolute where it is a folder, and a run
resumes on the same files alone."""

InputFile = Annotated[str, IsFile()]
"""A file, a folder or a glob of files with records. It becomes absolute, and a run resumes on the same rows alone."""

Changeable = Annotated[T, MayChange()]
"""A setting that may change when a run resumes: where and how fast something is computed, never what. Of a group,
all that is in it."""

Fraction = Annotated[float, Field(ge=0, lt=1)]
Dtype = Literal["float32", "bfloat16"]
