"""The base class of all settings, and what the type of a field says of its meaning."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from plumbob.core.programs.function_source import SOURCE_SUFFIX

T = TypeVar("T")

MAX_NAME_BYTES, MAX_PATH_BYTES = 255, 4095
"""Of one part of a path, and of all of it, on the file systems of Linux."""


class Settings(BaseModel):
    """A frozen group of settings; unknown keys are refused."""

    unknown_key_advice: ClassVar[str] = ""
    """What a message about a key or a value that the group does not have says of the group, where that helps."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


@dataclass(frozen=True)
class IsModel:
    """The text names a model."""


@dataclass(frozen=True)
class IsFile:
    """The text names files with records."""


@dataclass(frozen=True)
class IsFunction:
    """The text names a function or a class of the user's."""


@dataclass(frozen=True)
class MayChange:
    """Another value changes no more of a run's result than the rounding of sums."""


def usable_path(text: str) -> str:
    """The same text. Raises what pydantic tells as a wrong type where no file or folder can have such a name."""
    try:
        size, parts = len(text.encode()), [len(part.encode()) for part in text.split("/")]
    except UnicodeEncodeError:
        raise PydanticCustomError("path", "Unicode text") from None
    if not text.strip():
        raise PydanticCustomError("path", "a name that is not empty")
    if "\0" in text:
        raise PydanticCustomError("path", "a name without the character NUL")
    if size > MAX_PATH_BYTES or max(parts) > MAX_NAME_BYTES:
        raise PydanticCustomError("path", "a path of at most 4095 bytes, each part of it of at most 255")
    if text.startswith("~"):
        try:
            Path(text).expanduser()
        except RuntimeError:
            raise PydanticCustomError("path", "a path below the home of a user that there is") from None
    return text


ModelName = Annotated[str, AfterValidator(usable_path), IsModel()]
"""A Hugging Face folder, a PEFT adapter folder or a hub name. It becomes absolute where it is a folder, and a run
resumes on the same files alone."""

InputFile = Annotated[str, AfterValidator(usable_path), IsFile()]
"""A file, a folder or a glob of files with records. It becomes absolute, and a run resumes on the same rows alone."""


def usable_function(text: str) -> str:
    """The same text. Raises what pydantic tells as a wrong type where no function can be called so."""
    source, _, name = text.rpartition(":")
    if source.endswith(SOURCE_SUFFIX):
        usable_path(source)
    if not name.isidentifier() or not (
        source.endswith(SOURCE_SUFFIX) or all(part.isidentifier() for part in source.split("."))
    ):
        raise PydanticCustomError("path", "file.py:function or package.module:function")
    return text


FunctionName = Annotated[str, AfterValidator(usable_function), IsFunction()]
"""`file.py:name` or `package.module:name`. A file becomes absolute, and a run resumes on the same source alone."""


SECRET = re.compile(r"(^|[_-])(key|token|secret|password|passwd|auth|sig|signature|credentials?)$|apikey$", re.I)
"""Names in an address's query whose values nobody else may know."""


def without_secret(url: str) -> str:
    """The same address. Raises what pydantic tells as a wrong type where it holds a password or a key."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise PydanticCustomError("path", "an address") from None
    if "@" in parts.netloc:
        raise PydanticCustomError("path", "an address without user and password, which the environment keeps")
    if any(SECRET.search(name) for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        raise PydanticCustomError("path", "an address without a key or token in it, which the environment keeps")
    return url


Address = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(without_secret)]
"""Of a service. It holds no secret: settings are kept in the run's folder, and sent to its sinks."""

Changeable = Annotated[T, MayChange()]
"""A setting that may change when a run resumes: where and how fast something is computed, never what. Of a group,
all that is in it."""

# Every number has a bound that no run comes near, so that a slip of the keyboard is reported before anything starts.

Count = Annotated[int, Field(gt=0, le=1_000_000_000)]
"""Of steps, records or prompts."""

CountOrZero = Annotated[int, Field(ge=0, le=1_000_000_000)]

BatchSize = Annotated[int, Field(gt=0, le=1_000_000)]

NumTokens = Annotated[int, Field(gt=0, le=10_000_000)]
"""Of one sequence, or a part of it."""

NumWorkers = Annotated[int, Field(gt=0, le=100_000)]

Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""What torch, numpy and the samplers take."""

Positive = Annotated[float, Field(gt=0, le=1_000_000)]
"""A coefficient, a weight, a threshold or a factor."""

PositiveOrZero = Annotated[float, Field(ge=0, le=1_000_000)]

Coefficient = Annotated[float, Field(ge=-1_000_000, le=1_000_000)]
"""Of either sign."""

Factor = Annotated[float, Field(gt=1, le=1_000_000)]
"""How much larger something is."""

LearningRate = Annotated[float, Field(gt=0, le=10)]

Seconds = Annotated[float, Field(gt=0, le=10_000_000)]
"""Up to four months."""

GiB = Annotated[float, Field(ge=0, le=1_000_000)]

Fraction = Annotated[float, Field(ge=0, lt=1)]
Dtype = Literal["float32", "bfloat16"]
