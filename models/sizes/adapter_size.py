"""How many numbers what is put on a model is made of (AdapterSize): told without making it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AdapterSize:
    """Of one new adapter.

    Attributes:
        num_trained: parameters.
        num_start: of what stays beside it: the weights that it begins from, or scores of its ranks.
        num_shared: numbers that stay as they are, and that all adapters on a base share.
    """

    num_trained: int
    num_start: int = 0
    num_shared: int = 0
