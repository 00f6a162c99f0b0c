"""How the reward of one response was shaped, step by step: what a waterfall of it is drawn of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

StepKind = Literal["part", "gate", "scale", "clip", "penalty", "kl", "teacher"]
"""part: what a part of the reward adds. gate: takes all of them off. scale, clip, penalty: of the shaping. kl: from
the reference, where it is paid for in the reward. teacher: log teacher - log policy, the only step of distillation,
which learns from no reward."""

STAGES: Sequence[tuple[str, StepKind]] = (
    ("scale", "scale"),
    ("clip", "clip"),
    ("no end", "penalty"),
    ("length", "penalty"),
    ("overlong", "penalty"),
)
"""Of the shaping, in its order."""

ROUNDING = 1e-6
"""A step of less than this share of the largest amount (or of 1) is float32's rounding, and is left out."""


@dataclass(frozen=True)
class ShapingStep:
    """Attributes: value: by how much the response's reward grew."""

    name: str
    kind: StepKind
    value: float


@dataclass(frozen=True)
class ShapingRecord:
    """From the parts of a reward to what the estimator of advantages saw, as it was computed.

    Attributes:
        steps: in the order in which they were taken; their sum is the return, but for float32's rounding.
        total: what the shaping began with, the sum of the parts.
        undiscounted_return: the sum of the tokens' rewards.
    """

    steps: tuple[ShapingStep, ...]
    total: float
    undiscounted_return: float

    def as_cell(self) -> dict[str, Any]:
        """As the journal has it."""
        steps = [asdict(step) for step in self.steps]
        return {"steps": steps, "total": self.total, "return": self.undiscounted_return}

    @classmethod
    def from_cell(cls, cell: Mapping[str, Any]) -> Self:
        return cls(tuple(ShapingStep(**step) for step in cell["steps"]), cell["total"], cell["return"])


def record_shaping(
    parts: Mapping[str, float], shut_gate: str | None, total: float, levels: Sequence[float], undiscounted_return: float
) -> ShapingRecord:
    """The steps of a response that a reward is learnt from.

    Args:
        parts: what each adds.
        shut_gate: the part by which their sum became 0; None where it did not.
        levels: what the response had earned after each of `STAGES`.
    """
    steps = [ShapingStep(name, "part", value) for name, value in parts.items()]
    if shut_gate is not None:
        steps.append(ShapingStep(shut_gate, "gate", -sum(parts.values())))
    largest = max(1.0, *map(abs, (total, undiscounted_return, *levels)))
    changes = _changes(total, levels, undiscounted_return)
    steps += [step for step in changes if abs(step.value) > ROUNDING * largest]
    return ShapingRecord(tuple(steps), total, undiscounted_return)


def _changes(total: float, levels: Sequence[float], undiscounted_return: float) -> Iterator[ShapingStep]:
    level = total
    for (name, kind), after in zip(STAGES, levels, strict=True):
        yield ShapingStep(name, kind, after - level)
        level = after
    yield ShapingStep("kl", "kl", undiscounted_return - level)
