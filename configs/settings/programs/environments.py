"""What a policy acts in: an environment of the user's, how long its episodes may be, and what a failure is worth."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from plumbob.configs.base import Coefficient, FunctionName, Seconds, Settings
from plumbob.configs.settings.programs.reward_programs import MemoryGib, VariableName

Turns = Annotated[int, Field(ge=1, le=1000)]


class EnvironmentSettings(Settings):
    """A class of the user's that answers the policy's turns, each episode in a process of its own."""

    source: FunctionName
    """`file.py:Class` or `package.module:Class`, with `reset(row, seed)` and `step(turn)` (docs/environments.md)."""
    arguments: dict[str, JsonValue] = {}  # noqa: RUF012 - pydantic copies it
    """What the class is called with, by name."""
    max_turns: Turns = 8
    """Of the policy in one episode; then it ends with the rewards that it has."""
    tool_calls: Literal["template", "none"] | FunctionName = "template"
    """How calls of tools are found in the policy's text: as its chat template writes them, not at all, or by a function
    of the user's, `file.py:name`, which is given the text with its control tokens and gives a list of calls, or
    None."""
    timeout_s: Seconds = 10.0
    """Of one call of the class; then its process is ended and the episode has failed."""
    episode_s: Seconds = 600.0
    """Of a whole episode by the clock, with what the policy's turns take; then it ends with the rewards that it has."""
    memory_gib: MemoryGib = 1.0
    """What the process of one episode may allocate, with what its import takes; beside the worker's `memory_gib`."""
    on_failure: Coefficient | Literal["stop"] = "stop"
    """What an episode is worth whose environment raised, took too long or gave no valid reply; or the run ends."""
    variables: tuple[VariableName, ...] = ()
    """Variables of the rollout worker's environment that it shall see, such as the key of a service that it asks."""
