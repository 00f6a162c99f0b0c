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


class CodePart(PartSettings):
    """The program that a response holds, by the tests of the prompt's row, in a sandbox (docs/rewards.md says which).

    The program is the response's last fenced block of code, or all of it where it has none. It is Python.
    """

    kind: Literal["code"] = "code"
    column: Annotated[str, Field(min_length=1, max_length=200)] = "tests"
    """Of the prompts' rows: where the tests stand."""
    form: Literal["asserts", "stdio"] = "asserts"
    """Tests are code that calls the program's functions and asserts; or pairs of what it reads and what it prints."""
    value: Literal["all", "share"] = "all"
    """1 where it passes all tests and else 0; or the share of them that it passes."""
    isolation: Literal["namespaces", "limits"] = "namespaces"
    """`limits` is for hosts that give nobody a namespace, and contains less: the network and files can be reached."""
    timeout_s: Seconds = 10.0
    """Of all tests of a response together, by the clock."""
    cpu_s: Annotated[float, Field(ge=1, le=86_400)] = 4.0
    """Of one of its processes; in whole seconds, rounded up."""
    memory_gib: MemoryGib = 0.5
    """Of one of its processes."""
    max_processes: Annotated[int, Field(ge=1, le=1000)] = 4
    """Threads and processes that it may have at once, itself among them; with `isolation=limits` it has one."""
    max_file_mib: Annotated[int, Field(ge=1, le=1024)] = 4
    """Of its output, and of each file that it writes."""
    scratch_mib: Annotated[int, Field(ge=1, le=65_536)] = 16
    """Of all its files, which are in memory and gone afterwards."""
    programs_at_once: Annotated[int, Field(ge=1, le=256)] = 2
    """Responses of one scorer that are tested beside one another."""
    on_failure: Coefficient | Literal["stop"] = "stop"
    """What a response is worth whose tests cannot be run, whatever the program is; or the run ends."""

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)


ProgramPart = FunctionPart | CodePart
"""A new one is a variant here, and `KIND_part.py` in `reward/parts/`, which opens it."""
