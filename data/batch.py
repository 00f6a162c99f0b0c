"""The base of all batches: how rows, their number and their lengths are taken of every field, by what it holds."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray


class Prompts(NamedTuple):
    """Which rows begin with the same prompt.

    Attributes:
        numbers: int64 [B], the same for rows with the same prompt.
        lengths: int64 [B], tokens of each row's prompt.
    """

    numbers: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def rows(self, index: NDArray[np.int64]) -> "Prompts":
        return Prompts(self.numbers[index], self.lengths[index])


def prompts_before(input_ids: Any, attention_mask: Any, action_mask: Any) -> Prompts:
    """Found by the real tokens before each row's first action; [B, T] each, arrays or tensors."""
    ids, attended, actions = (np.asarray(x) for x in (input_ids, attention_mask, action_mask))
    before = attended & (actions.cumsum(axis=1) == 0)
    numbers: dict[bytes, int] = {}
    rows = [numbers.setdefault(row[kept].tobytes(), len(numbers)) for row, kept in zip(ids, before, strict=True)]
    return Prompts(np.array(rows, dtype=np.int64), before.sum(axis=1, dtype=np.int64))


@dataclass(frozen=True)
class Batch:
    """Rows that can be dealt out: every learner is given the whole batch and takes its own.

    A field is an array or a tensor [B, ...], another batch of as many rows, or what is said of the whole batch: a
    number, or None. A batch that takes its rows otherwise, or measures them, says so with a method of its own.
    """

    @property
    def num_rows(self) -> int:
        """B: of the first field that has rows."""
        return next(value.num_rows if isinstance(value, Batch) else len(value) for value in self._of_rows())

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Real tokens of each row, [B], by the attention mask [B, ..., T]: rows of like length are put together.

        Of a row with several sequences, in one mask or in batches side by side, those of the longest.
        """
        if hasattr(self, "attention_mask"):
            found: NDArray[np.int64] = np.asarray(self.attention_mask).sum(axis=-1, dtype=np.int64)
            return found.reshape(len(found), -1).max(axis=1)
        return np.stack([value.lengths for value in self._of_rows() if isinstance(value, Batch)]).max(axis=0)

    @property
    def prompts(self) -> Prompts | None:
        """For rows that may begin with the same prompt: None where they do not, or where that is not looked for."""
        return None

    def rows(self, index: NDArray[np.int64], /) -> Self:
        """The rows at `index` [b], in that order: of every field."""
        return self.map_arrays(lambda values: values[index])

    def in_later_epochs(self) -> Self:
        """What an update's epochs after its first learn from: the same rows, without what the first alone measures."""
        inner = ((field.name, getattr(self, field.name)) for field in fields(self))
        changed = {name: value.in_later_epochs() for name, value in inner if isinstance(value, Batch)}
        return replace(self, **changed)

    def map_arrays(self, change: Callable[[Any], Any]) -> Self:
        """The same batch with `change` of each of its arrays, and of those of the batches in it."""
        return replace(self, **{field.name: _mapped(getattr(self, field.name), change) for field in fields(self)})

    def _of_rows(self) -> list[Any]:
        values = (getattr(self, field.name) for field in fields(self))
        return [value for value in values if not _is_of_the_whole(value)]


def _is_of_the_whole(value: Any) -> bool:
    return value is None or isinstance(value, int | float)


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    if _is_of_the_whole(value):
        return value
    return value.map_arrays(change) if isinstance(value, Batch) else change(value)
