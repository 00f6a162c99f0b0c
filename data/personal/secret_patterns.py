"""Keys and tokens by the forms that their makers give them, and what is assigned to a name such as `api_key`."""

import math
import re
from collections import Counter
from collections.abc import Iterator

from plumbob.data.personal.personal_span import PersonalSpan

KNOWN = re.compile(
    r"""(?<![A-Za-z0-9_])(?:
    (?:AKIA|ASIA)[0-9A-Z]{16}                                # Amazon
    |gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{22,255}     # GitHub
    |glpat-[\w-]{20,64}                                      # GitLab
    |xox[abeprs]-[A-Za-z0-9-]{10,255}                        # Slack
    |(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,255}          # Stripe
    |sk-(?:ant-|proj-)?[\w-]{20,255}                         # makers of language models
    |AIza[\w-]{35}                                           # Google
    |hf_[A-Za-z0-9]{30,64}                                   # Hugging Face
    |npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,255}                  # registries
    |eyJ[\w-]{8,2000}\.eyJ[\w-]{8,2000}\.[\w-]{8,2000}       # JSON web tokens
    )(?![A-Za-z0-9_-])""",
    re.VERBOSE,
)

PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z]{2,12} ){0,2}PRIVATE KEY-----.{1,10000}?-----END (?:[A-Z]{2,12} ){0,2}PRIVATE KEY-----", re.S
)

ASSIGNED = re.compile(
    r"(?i)\b(?:api[_-]?key|access[_-]?key|secret(?:[_-]?key)?|auth[_-]?token|access[_-]?token|token|password|passwd)"
    r"['\"]?\s{0,3}[:=]\s{0,3}['\"]?([\w+/=.~!@#$%^&*-]{12,255})"
)
LEAST_BITS = 3.0
"""Of entropy a character: below it stand words and fillers such as `xxxxxxxxxxxx`."""


def secrets_in(text: str) -> Iterator[PersonalSpan]:
    for pattern in (KNOWN, PRIVATE_KEY):
        for found in pattern.finditer(text):
            yield PersonalSpan("secret", found.start(), found.end(), found[0])
    for found in ASSIGNED.finditer(text):
        value = found[1].rstrip(".,;")
        if any(letter.isdigit() for letter in value) and _bits(value) >= LEAST_BITS:
            yield PersonalSpan("secret", found.start(1), found.start(1) + len(value), value)


def _bits(text: str) -> float:
    """Shannon's entropy of its letters, in bits a letter."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())
