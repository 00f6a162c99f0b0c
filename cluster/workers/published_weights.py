"""Weights of a whole model on their way from learners to samplers: in buckets, of which few are in memory at once."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from torch import Tensor

from plumbob.core.errors import RunFailed

BUCKET_BYTES = 2**28
"""Of one bucket at most, but of a tensor that is larger."""

NUM_KEPT = 2
"""Buckets that a reader has at once: what an engine keeps as one tensor may lie in two that follow one another."""

FETCHED_WITHIN_S = 600.0
"""A bucket, from the host that has it, or from its disk where the object store was full."""


class BucketedTensors(Mapping[str, Tensor]):
    """Tensors that are objects of Ray's in buckets. One is fetched when a tensor in it is read.

    Args:
        buckets: of each the names, in the order in which they are read, and the object, a mapping of them.
    """

    def __init__(self, buckets: Sequence[tuple[tuple[str, ...], Any]]) -> None:
        self._buckets = tuple(buckets)
        self._bucket_of = {name: index for index, (names, _) in enumerate(self._buckets) for name in names}
        self._kept: OrderedDict[int, Mapping[str, Tensor]] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._buckets,)

    def __getitem__(self, name: str) -> Tensor:
        index = self._bucket_of[name]
        if index not in self._kept:
            while len(self._kept) >= NUM_KEPT:
                self._kept.popitem(last=False)
            self._kept[index] = self._fetched(index)
        return self._kept[index][name]

    def _fetched(self, index: int) -> Mapping[str, Tensor]:
        try:
            found: Mapping[str, Tensor] = ray.get(self._buckets[index][1], timeout=FETCHED_WITHIN_S)
        except GetTimeoutError as error:
            first = self._buckets[index][0][0]
            raise RunFailed(f"the weights from {first} on did not arrive within {FETCHED_WITHIN_S:.0f} s") from error
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._bucket_of

    def __iter__(self) -> Iterator[str]:
        return iter(self._bucket_of)

    def __len__(self) -> int:
        return len(self._bucket_of)
