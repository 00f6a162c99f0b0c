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


class BiasMitigationSettings(Settings):
    """What a reward model's training does so that its scores depend less on which group a text names.

    With it, what is left is measured on the held-out records, as `heldout_bias`.
    """

    augment: bool = False
    """Learn each record that names a group a second time, with the other group's terms in all its texts; of several
    contrasts once for each."""
    filter: bool = False
    """Leave out records of which one response names a group alone and another response the other group alone: a
    preference between them may be one between the groups."""
    consistency: PositiveOrZero = 0.0
    """Weight of (r - r')^2, where r' is the reward of the same text with the other group's terms; 0 learns none of it.
    Up to twice the texts go through the model."""
    terms: InputFile | None = None
    """A file with pairs of terms, as `plumbob bias terms` writes ours to be edited; None takes ours, in English."""
