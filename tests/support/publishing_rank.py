"""A learner's rank that only publishes, of four tensors in three buckets: each of its version and its name."""

from collections.abc import Sequence

import torch

from plumbob.models.adapter import FullWeights

BUCKETS = (("a", "b"), ("c",), ("d",))


class PublishingRank:
    """Args: buckets: none as of an adapter."""

    def __init__(self, buckets: tuple[tuple[str, ...], ...] = BUCKETS) -> None:
        self._buckets = buckets
        self._asked: list[object] = []

    def weight_buckets(self, most_bytes: int) -> tuple[tuple[str, ...], ...]:
        self._asked.append(most_bytes)
        return self._buckets

    def policy_weights(self, version: int, names: Sequence[str] | None = None) -> FullWeights:
        names = ("a", "b", "c", "d") if names is None else names
        self._asked.append(list(names))
        return FullWeights(version, {name: torch.tensor([float(version), float(ord(name))]) for name in names})

    def asked_for(self) -> list[object]:
        return self._asked
