"""How few numbers a task can be learnt with: the smallest rank of LoRA that gains nearly what full fine-tuning does."""

from dataclasses import dataclass
from typing import Any

from plumbob.core.errors import UserError
from plumbob.driver.comparison.compared_methods import FULL, of_rank
from plumbob.driver.comparison.comparison import MethodComparison
from plumbob.driver.comparison.comparison_row import ComparisonRow, NotCompared

RANKS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class SmallestRank:
    """What a search came to.

    Attributes:
        full: full fine-tuning's row.
        share: of its gain, which is to be reached.
        found: the row of the smallest rank that reaches it; None where none of `RANKS` does.
    """

    full: ComparisonRow
    share: float
    found: ComparisonRow | None

    def sentence(self) -> str:
        wanted = f"{self.share:.0%} of full fine-tuning's gain of {self.full.gain:.4g}"
        if self.found is None:
            return f"no rank up to {RANKS[-1]} reaches {wanted}"
        numbers = f"{self.found.num_trained:,} parameters against {self.full.num_trained:,}"
        return f"{self.found.method} is the smallest that reaches {wanted}: {self.found.gain:.4g}, with {numbers}"

    def as_dict(self) -> dict[str, Any]:
        found = None if self.found is None else self.found.method
        return {"share": self.share, "full_gain": self.full.gain, "smallest": found}


def smallest_rank(comparison: MethodComparison, share: float) -> SmallestRank:
    """Full fine-tuning first, then rank after rank until one gains `share` of that.

    The smallest number of parameters that learns a task nearly as well as all of them is its intrinsic dimension (Li et
    al. 2018, arXiv 1804.08838; of language models Aghajanyan et al. 2020, arXiv 2012.13255, at a share of 90%). They
    look for it among random subspaces of all weights; here it is looked for among ranks.

    Raises:
        UserError: full fine-tuning is refused, or gains nothing.
    """
    full = comparison.measure(FULL)
    if isinstance(full, NotCompared):
        raise UserError(f"full fine-tuning, which ranks are compared with, has no result: {full.reason}")
    if full.gain <= 0:
        raise UserError(
            f"full fine-tuning with a learning rate of {full.learning_rate:g} lowers the held-out loss by "
            f"{full.gain:.4g}, which no rank can be compared with: give several --rates, or more records"
        )
    for rank in RANKS:
        found = comparison.measure(of_rank(rank))
        if isinstance(found, ComparisonRow) and found.gain >= share * full.gain:
            return SmallestRank(full, share, found)
    return SmallestRank(full, share, None)
