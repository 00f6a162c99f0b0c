"""The learning rate's factor at each step."""

import math
from typing import assert_never

from plumbob.configs.settings.training import OptimizerSettings


def learning_rate_scale(optimizer: OptimizerSettings, step: int, num_steps: int) -> float:
    """Factor on the learning rate at 0-based `step` of `num_steps`: linear warm-up, then the schedule down to zero.

    The first step is never taken at zero, and the last is above zero.
    """
    num_warmup = round(optimizer.warmup_fraction * num_steps)
    if step < num_warmup:
        return (step + 1) / (num_warmup + 1)
    done = (step - num_warmup) / max(num_steps - num_warmup, 1)
    match optimizer.schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - done
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * done))
        case _:
            assert_never(optimizer.schedule)
