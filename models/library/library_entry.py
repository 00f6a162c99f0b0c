"""What a library knows of an adapter (`LibraryEntry`): a JSON file beside PEFT's own two, which PEFT does not read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError

from plumbob.core.atomic_files import write_atomically
from plumbob.core.errors import UserError
from plumbob.core.outside import read_json_object

ENTRY_FILE = "library_entry.json"
UNKNOWN = "unknown"

T = TypeVar("T")

Known = Annotated[
    T | None,
    BeforeValidator(lambda value: None if value == UNKNOWN else value),
    PlainSerializer(lambda value: UNKNOWN if value is None else value),
]
"""None is what nobody knows, which the file says in a word, so that it is not taken for forgotten."""

NOT_QUANTISED: Mapping[str, Any] = {}


class DataFile(BaseModel):
    """Records that a run learnt from or was measured on: which files, and the digest of their rows when it began."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Known[str]
    digest: str


class Evaluation(BaseModel):
    """What an evaluation measured of an adapter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: DataFile
    """That it was asked."""
    baseline: str | None
    """What it was compared with; None compares with nothing."""
    reward: str
    """Reward model, or names of the parts, of its rewards."""
    when: str
    scores: dict[str, float]

    def is_again(self, other: "Evaluation") -> bool:
        """Whether the same was measured by the same."""
        return (self.prompts.digest, self.baseline, self.reward) == (other.prompts.digest, other.baseline, other.reward)


@dataclass(frozen=True)
class TrainingFacts:
    """What is known of how an adapter was trained; None of what is not.

    Attributes:
        run: folder of the run.
        stage: of the run, such as sft.
        trained: when the run began, ISO 8601.
        base_digest: of the base when the run began.
        quantization: settings of the bits that the base was kept in meanwhile; NOT_QUANTISED of weights as stored.
        data: setting -> the records.
        scores: metric -> number, as the stage's summary has them.
    """

    run: str | None = None
    stage: str | None = None
    trained: str | None = None
    base_digest: str | None = None
    quantization: Mapping[str, Any] | None = None
    data: Mapping[str, DataFile] | None = None
    scores: Mapping[str, float] | None = None


class LibraryEntry(BaseModel):
    """An adapter of a library."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Its folder's, within the library."""
    task: Known[str]
    """What it was trained for, in its user's words."""
    method: str
    """Such as lora, dora or ia3."""
    rank: int
    """The largest of its modules'; 0 of a method without ranks."""
    num_parameters: int
    num_bytes: int
    """Of its file of weights."""
    digest: str
    """Of that file."""
    base: str
    """Folder or hub name."""
    base_digest: Known[str]
    """Of the base's config and weights, by which it is known again where it was moved to."""
    quantization: Known[dict[str, Any]]
    """Settings of the bits that the base was kept in while it was trained; empty where it was as stored."""
    data: Known[dict[str, DataFile]]
    """Setting -> records of the run."""
    scores: Known[dict[str, float]]
    """Metric -> number, of the run's summary."""
    run: Known[str]
    stage: Known[str]
    trained: Known[str]
    """When the run began."""
    source: str
    """Folder that it was copied from, or what it was made of."""
    parts: dict[str, float]
    """Adapters that it is a weighted sum of -> their weights; empty of one that was trained."""
    added: str
    """When it came into the library."""
    evaluations: tuple[Evaluation, ...] = ()
    """Oldest first."""

    def with_evaluation(self, found: Evaluation) -> Self:
        """With a further one, in the place of the same made before."""
        others = [each for each in self.evaluations if not each.is_again(found)]
        return self.model_copy(update={"evaluations": (*others, found)})

    def write(self, folder: Path) -> None:
        write_atomically(folder / ENTRY_FILE, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises UserError when the file is not there, or not as a library writes it."""
        path = folder / ENTRY_FILE
        fix = "add the adapter again"
        content = read_json_object(path, f"{path}: cannot be read", fix)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise UserError(f"{path}: {field}: {first['msg']}; {fix}") from error

    @classmethod
    def read_beside(cls, adapter: Path) -> Self | None:
        """Of an adapter's folder; None where it is of no library."""
        return cls.read(adapter) if (adapter / ENTRY_FILE).is_file() else None

    @property
    def facts(self) -> TrainingFacts:
        return TrainingFacts(
            self.run, self.stage, self.trained, self.base_digest, self.quantization, self.data, self.scores
        )
