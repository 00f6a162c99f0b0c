"""How a reward's bias is measured, and what of it is too much; and what a reward model's training does against it."""

from typing import Literal

from plumbob.configs.base import Count, InputFile, PositiveOrZero, Settings


class BiasCheckSettings(Settings):
    """The reward scores texts about people beside the same with another group's terms."""

    texts: InputFile | None = None
    """A file with responses to prompts, in any form that is read; None takes everyday dialogues of our own."""
    max_texts: Count = 2000
    """Of the file, at most so many, spread evenly over it."""
    terms: InputFile | None = None
    """A file with pairs of terms, as `plumbob bias terms` writes ours to be edited; None takes ours, in English."""
    max_difference: PositiveOrZero = 0.25
    """A mean difference between two groups that is larger than the noise and above this is too much. In units of the
    score, which with a calibration is the standard deviation of the scores of a policy's responses."""
    past_bound: Literal["warn", "refuse"] = "warn"
    """What to do about it: say so, or end a run that would learn from the reward before its first step."""
