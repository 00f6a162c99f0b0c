"""All kinds of personal data, looked for in many texts (PersonalFinder)."""

from collections.abc import Sequence
from functools import cache

from plumbob.core.errors import UserError
from plumbob.data.personal.number_patterns import number_finders
from plumbob.data.personal.person_names import NameFinder
from plumbob.data.personal.personal_span import PersonalSpan, without_overlaps
from plumbob.data.personal.secret_patterns import secrets_in


class PersonalFinder:
    """Finds personal data of all kinds.

    Raises:
        UserError: what it needs is not installed.
    """

    def __init__(self) -> None:
        try:
            self._finders = (secrets_in, *number_finders())
        except ImportError as error:
            raise UserError(
                f"personal data is looked for with presidio-analyzer, which cannot be imported ({error}): pip install "
                f"'plumbob[stewardship]'"
            ) from error
        self._names = NameFinder()

    def found_in(self, texts: Sequence[str]) -> list[list[PersonalSpan]]:
        """Of each text what it has, in its order; no two overlap."""
        names = self._names.found_in(texts)
        return [
            without_overlaps([*own, *(span for find in self._finders for span in find(text))])
            for text, own in zip(texts, names, strict=True)
        ]


@cache
def personal_finder() -> PersonalFinder:
    """The one of this process: loading what it needs takes seconds. UserError where it is not installed."""
    return PersonalFinder()
