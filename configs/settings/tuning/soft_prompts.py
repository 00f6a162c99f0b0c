"""Methods that train vectors which a frozen model reads before every text, as if they were tokens."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from plumbob.configs.base import Settings
from plumbob.configs.settings.tuning.adapters import AdapterTuning

EncoderWidth = Annotated[int, Field(gt=0, le=1_000_000)]


class SoftPromptTuning(AdapterTuning):
    """The policy differs from its base before the first update: a stage's reference is the soft prompt as it began."""

    size_key = "num_virtual_tokens"

    num_virtual_tokens: Annotated[int, Field(gt=0, le=65_536)] = 20
    """Vectors. Each takes one of the positions that the model has for a text."""

    @property
    def reads_weights(self) -> bool:
        return False


class PromptTuning(SoftPromptTuning):
    """A vector before each text for each virtual token (Lester et al. 2021, arXiv 2104.08691)."""

    peft_type = "PROMPT_TUNING"

    kind: Literal["prompt-tuning"] = "prompt-tuning"
    init: Literal["vocabulary", "text", "gaussian"] = "vocabulary"
    """Where the vectors begin: at the embeddings of tokens drawn at random, at those of `init_text`, or at random."""
    init_text: Annotated[str, Field(min_length=1, max_length=100_000, pattern=r"\S")] | None = None
    """For `init: text`: its tokens are repeated, or cut, to `num_virtual_tokens`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.init == "text") != (self.init_text is not None):
            raise ValueError(
                f"policy.tuning.init={self.init} and policy.tuning.init_text go together with init=text alone: give "
                f"init_text with it, and leave it out otherwise"
            )
        return self


class PTuning(SoftPromptTuning):
    """The vectors are what a small network makes of trained ones, which learns faster (Liu et al. 2021, arXiv
    2103.10385). What is exported are the vectors, without the network."""

    peft_type = "P_TUNING"

    kind: Literal["p-tuning"] = "p-tuning"
    encoder: Literal["mlp", "lstm"] = "mlp"
    """Three layers, or a bidirectional LSTM of two and two layers after it."""
    hidden_size: EncoderWidth | None = None
    """Width inside the network; None takes the model's."""


class PrefixTuning(SoftPromptTuning):
    """Keys and values of each virtual token in every layer (Li and Liang 2021, arXiv 2101.00190)."""

    peft_type = "PREFIX_TUNING"

    kind: Literal["prefix-tuning"] = "prefix-tuning"
    init: Literal["zero", "gaussian"] = "zero"
    """Where keys and values begin. Those at zero draw attention to themselves and add nothing; those at random, with a
    variance of 1, drown a model whose own are smaller."""
    projection: bool = False
    """Train a small network that makes them of one vector for each virtual token. Exported are keys and values."""
    hidden_size: EncoderWidth | None = None
    """Width inside that network; None takes that of a layer's keys."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.hidden_size is not None and not self.projection:
            raise ValueError(
                "policy.tuning.hidden_size is of the network that policy.tuning.projection=true trains: set that, or "
                "leave hidden_size out"
            )
        return self


TaskName = Annotated[str, Field(min_length=1, max_length=60, pattern=r"^\w[\w.-]*$")]
"""It becomes the name of a folder."""


class MultitaskPromptTuning(SoftPromptTuning):
    """One soft prompt for all tasks, times a matrix of low rank for each (Wang et al. 2023, arXiv 2303.02861).

    For supervised fine-tuning, whose rows name their tasks. Each task's own soft prompt is exported beside the whole.
    """

    peft_type = "MULTITASK_PROMPT_TUNING"

    kind: Literal["multitask-prompt-tuning"] = "multitask-prompt-tuning"
    tasks: Annotated[tuple[TaskName, ...], Field(min_length=2, max_length=1000)]
    """What the tasks are called."""
    task_column: Annotated[str, Field(min_length=1, max_length=200)] = "task"
    """The column of the demonstrations that has the name of each row's task."""
    rank: Annotated[int, Field(gt=0, le=1000)] = 1
    """Of each task's matrix."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        twice = next((name for name in self.tasks if self.tasks.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"policy.tuning.tasks names {twice} twice: name each task once")
        return self


def check_tasks(tuning: Settings, beside: Mapping[str, Settings | None]) -> None:
    """Raises ValueError where a run has text beside its rows, which names no task. `beside`: by its setting."""
    name = next((name for name, text in beside.items() if text is not None), None)
    if isinstance(tuning, MultitaskPromptTuning) and name is not None:
        raise ValueError(
            f"{name}.text names no task, and policy.tuning.kind={tuning.kind} reads another soft prompt for each: "
            f"leave {name} out"
        )
