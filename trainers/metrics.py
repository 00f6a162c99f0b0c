"""What a stage reports while it runs: one record a step, to a file, to TensorBoard and to whoever watches."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class StepRecord:
    """One step of one stage.

    Attributes:
        stage: "pretrain", "sft", "reward", "ppo", ...
        step: 1-based number of the step that has just ended.
        num_steps: how many there will be.
        metrics: name -> value, such as "loss", "reward", "kl", "tokens_per_s".
        seconds: phase -> seconds, such as "sample", "score", "learn", "publish".
    """

    stage: str
    step: int
    num_steps: int
    metrics: Mapping[str, float]
    seconds: Mapping[str, float]


class Listener(Protocol):
    """Who watches a run. The console has a live one and a plain one."""

    def stage_began(self, stage: str, num_steps: int) -> None: ...

    def stepped(self, record: StepRecord) -> None: ...

    def said(self, stage: str, message: str) -> None:
        """A sentence for a person: rows skipped, a bound passed, what is being waited for."""

    def stage_ended(self, stage: str, summary: Mapping[str, object]) -> None: ...
