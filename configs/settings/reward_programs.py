"""Parts of a reward that run code in processes of their own: the user's function, and what the policy wrote."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from plumbob.configs.base import BatchSize, Coefficient, FunctionName, Seconds
from plumbob.configs.settings.reward_parts import PartSettings

MemoryGib = Annotated[float, Field(ge=0.125, le=1_000_000)]
"""Of one process; Python itself takes 0.02."""

VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class FunctionPart(PartSettings):
    """A function of the user's: `score(prompt, response, row)`, or without the row; `async def` is awaited.

    It runs in a process of its own on each scorer's host, in the folder of its file, without the run's environment.
    """

    kind: Literal["function"] = "function"
    function: FunctionName
    """`file.py:name` or `package.module:name`. It is given texts and a dictionary, and gives a number."""
    batched: bool = False
    """It is given lists of prompts, of responses and of rows, and gives a list of numbers; None is a failure."""
    batch_size: BatchSize = 32
    """Responses in one call where it is batched; calls that are awaited together where it is `async def`."""
    timeout_s: Seconds = 10.0
    """Of one call; then its process is killed and started again."""
    memory_gib: MemoryGib = 2.0
    """What its process may allocate, beside the scorer's own `memory_gib`."""
    on_failure: Coefficient | Literal["stop"] = "stop"
    """What a response is worth that it raised for, took too long for or gave no finite number for; or the run ends."""
    environment: tuple[VariableName, ...] = ()
    """Variables of the scorer's environment that it shall see, such as the key of a service that it asks."""

    reads_rows: ClassVar[bool] = True
