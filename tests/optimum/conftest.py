"""What the tests of the optima share."""

from tests.support.shared_ranks import one_rank

__all__ = ["one_rank"]
