"""Whether two formulas are the same number, set or expression, by `math-verify`; in a process of its own alone.

Nothing here bounds time or memory: `reward/rules/bounded_process.py` does.
"""

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

from plumbob.reward.rules.rule import NotScored
