"""Work of a pool: chunks of a batch (WorkBatch), what members prepare first (Preparation), calls under way (Task)."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from plumbob.cluster.calls import Actor
from plumbob.cluster.failures import WorkerLost
from plumbob.core.errors import NUM_NAMED, RunFailed
from plumbob.reward.scorer import ScoreError

Chunk = tuple[int, ...]
"""Indices of the items that one member works on together."""


@dataclass(frozen=True, eq=False)
class Preparation:
    """What every member does before it takes work: open a model, load a version.

    Attributes:
        call: starts it on an actor, without waiting.
        check: of its result; raises when that is wrong.
    """

    call: Callable[[Actor], Any]
    doing: str
    check: Callable[[Any], None] = lambda _: None


class WorkBatch:
    """Items to work on, in chunks that are the same whoever takes them, as long as every item is done in one go.

    Args:
        call: starts work on items, without waiting; its result has one value for each.
        remaining: of a value, the item that is left to do where the value is not final; None where it is.
        joined: (items, call, its result) -> a value for each item.
    """

    def __init__(
        self,
        items: Sequence[Any],
        chunk_size: int,
        call: Callable[[Actor, Sequence[Any]], Any],
        doing: str,
        remaining: Callable[[Any], Any | None],
        joined: Callable[[Sequence[Any], Any, Any], Sequence[Any]],
    ) -> None:
        self.call, self.doing = call, doing
        self._items, self._chunk_size, self._remaining = list(items), chunk_size, remaining
        self._joined = joined
        indices = range(len(items))
        self._todo = deque(tuple(indices[start : start + chunk_size]) for start in indices[::chunk_size])
        self._unfinished: deque[int] = deque()
        self._done: dict[int, Any] = {}
        self._failures: Counter[Chunk] = Counter()
        self._losses: Counter[Chunk] = Counter()

    @property
    def is_done(self) -> bool:
        return len(self._done) == len(self._items)

    def take(self) -> Chunk | None:
        """What a free member shall do next: continue what others began, as soon as that fills a chunk or is all."""
        if len(self._unfinished) >= self._chunk_size or not self._todo:
            num_taken = min(self._chunk_size, len(self._unfinished))
            return tuple(self._unfinished.popleft() for _ in range(num_taken)) or None
        return self._todo.popleft()

    def requeue(self, chunk: Chunk) -> None:
        """Take a chunk again whose member was lost, as it was when it was taken."""
        self._todo.appendleft(chunk)

    def count_failure(self, chunk: Chunk) -> int:
        """Note that a member failed at a chunk; how often that has happened to it."""
        self._failures[chunk] += 1
        return self._failures[chunk]

    def count_loss(self, chunk: Chunk, lost: WorkerLost, limit: int) -> None:
        """Note that a chunk may be why a member was lost; RunFailed past the limit since it last progressed."""
        self._losses[chunk] += 1
        count = self._losses[chunk]
        if count > limit:
            raise RunFailed(
                f"{lost}\nthat is worker number {count} to be lost while it was {self.doing} the same {len(chunk)} "
                f"items, and cluster.max_restarts={limit}"
            ) from lost

    def items(self, chunk: Chunk) -> list[Any]:
        return [self._items[index] for index in chunk]

    def values_of(self, chunk: Chunk, call: Any, result: Any) -> Sequence[Any]:
        """Of a call's result, a value for each item of its chunk."""
        return self._joined(self.items(chunk), call, result)

    def record_values(self, chunk: Chunk, values: Sequence[Any]) -> int:
        """Take the values of a chunk; how many of them are final."""
        num_done = len(self._done)
        self._losses.pop(chunk, None)
        for index, value in zip(chunk, values, strict=True):
            remaining = self._remaining(value)
            if remaining is None:
                self._done[index] = value
            else:
                self._items[index] = remaining
                self._unfinished.append(index)
        return len(self._done) - num_done

    def counted_over_all(self, error: ScoreError, chunk: Chunk) -> ScoreError:
        """A chunk's error, its rows counted over all items."""
        rows = tuple(chunk[row] for row in error.rows)
        where = f"row {', '.join(map(str, rows[:NUM_NAMED]))} of the batch of {len(self._items)}"
        return ScoreError(f"{error} ({where})", rows)

    def results(self) -> list[Any]:
        """In the order of the items."""
        return [self._done[index] for index in range(len(self._items))]


@dataclass(frozen=True)
class Task:
    """One call under way: a preparation, or a chunk of a batch.

    Attributes:
        result: what Ray will have it in.
        began: by the monotonic clock.
        timeout: the key of the setting that bounds it.
    """

    result: Any
    work: Preparation | WorkBatch
    chunk: Chunk
    began: float
    timeout: str
