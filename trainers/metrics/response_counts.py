"""How many responses were issued, finished, scored, trained on and dropped, by policy version."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass
class ResponseCounts:
    """Of the responses that were issued under one policy version; `dropped`: reason -> how many."""

    issued: int = 0
    finished: int = 0
    scored: int = 0
    trained: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return vars(self) | {"dropped": dict(self.dropped)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """What `as_dict` gave."""
        return cls(**{**content, "dropped": Counter(content.get("dropped", {}))})

    def copy(self) -> "ResponseCounts":
        """The same, which later counts do not change."""
        return ResponseCounts(self.issued, self.finished, self.scored, self.trained, Counter(self.dropped))

    def add(self, other: "ResponseCounts") -> None:
        self.issued += other.issued
        self.finished += other.finished
        self.scored += other.scored
        self.trained += other.trained
        self.dropped += other.dropped

    def completed(self) -> "ResponseCounts":
        """The same without the responses whose end is still open."""
        num = self.trained + self.dropped.total()
        return ResponseCounts(num, num, num, self.trained, Counter(self.dropped))


@dataclass(frozen=True)
class CountsByVersion:
    """Of all responses of a run.

    Attributes:
        versions: policy version -> of the responses that were issued under it; the newest versions.
        older: the sums of the versions before those.
        reissued: given to another worker, because theirs was lost; not issued a second time.
    """

    versions: Mapping[int, ResponseCounts]
    older: ResponseCounts
    reissued: int

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        rows = {str(version): counts.as_dict() for version, counts in self.versions.items()}
        return {"versions": rows, "older": self.older.as_dict(), "reissued": self.reissued}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """What `as_dict` gave."""
        rows = {int(version): ResponseCounts.from_dict(row) for version, row in content["versions"].items()}
        return cls(rows, ResponseCounts.from_dict(content.get("older", {})), content["reissued"])
