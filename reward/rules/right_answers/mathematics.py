"""Whether two formulas are the same number, set or expression, by the package math-verify.

Nothing here bounds time or memory: `reward/rules/bounded_process.py` does, in which alone it is called. The package's
own time-outs are signals, which a thread cannot have and long operations of C code do not notice: they are off.
"""

import logging
from typing import Any

from math_verify import parse, verify

from plumbob.reward.rules.rule import NotScored

MAX_READ = 4000
"""Letters at the end of a text in which its answer is looked for: the package's patterns are quadratic in length."""

logging.getLogger("math_verify").setLevel(logging.ERROR)  # It warns that its own time-outs are off.


def is_equal(text: str, expected: str) -> bool:
    """Whether the last formula or number of the text, a boxed one before others, is equal to that of the answer.

    Raises:
        NotScored: the answer has none.
    """
    right = _parsed(expected if "$" in expected or "\\boxed" in expected else f"${expected}$")
    if not right:
        raise NotScored(f"no formula can be read in the row's answer {expected[:60]!r}")
    return bool(verify(right, _parsed(text[-MAX_READ:]), timeout_seconds=None))


def _parsed(text: str) -> list[Any]:
    found: list[Any] = parse(text, fallback_mode="no_fallback", parsing_timeout=None)
    return found
