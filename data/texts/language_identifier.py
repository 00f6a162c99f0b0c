"""Which language a text is written in, by py3langid's own model, which its package has."""

from functools import lru_cache
from typing import Any


@lru_cache(maxsize=1)
def language_identifier() -> Any:
    """It has `classify(text)`, which gives an ISO 639-1 code and a score, and `labels`, the codes that it knows."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)
