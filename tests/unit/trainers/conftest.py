"""What the tests of training share."""

from tests.support.shared_ranks import llama, one_rank, three_ranks, two_ranks

__all__ = ["llama", "one_rank", "three_ranks", "two_ranks"]
