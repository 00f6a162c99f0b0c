"""Which columns of a file are read and which are not: what a row carries is used, or named as left out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from plumbob.data.reading.field_values import Fields, listed


@dataclass
class UsedColumns:
    """Over the rows of a file.

    Attributes:
        columns: our field name -> the file's column, where they differ.
    """

    columns: Mapping[str, str]
    _found: set[str] = field(default_factory=set)
    _used: set[str] = field(default_factory=set)

    def watch(self, row: Fields, fields: Fields) -> Fields:
        """The `fields` of a file's row under our names; those whose value is taken are used."""
        self._found.update(row)
        return _Watched(fields, self)

    def take(self, name: str) -> None:
        self._used.add(self.columns.get(name, name))

    def note(self) -> str | None:
        """A sentence for a person about those that no row's record was made of."""
        unused = self._found - self._used
        if not unused:
            return None
        one = len(self._found) == 1
        return (
            f"{len(unused)} of {len(self._found)} column{'' if one else 's'} "
            f"{'is' if len(unused) == 1 else 'are'} not used: {listed(dict.fromkeys(unused))}."
        )


@dataclass(frozen=True)
class _Watched(Mapping[str, Any]):
    fields: Fields
    used: UsedColumns

    def __getitem__(self, name: str) -> Any:
        value = self.fields[name]
        self.used.take(name)
        return value

    def __contains__(self, name: object) -> bool:
        return name in self.fields

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)
