"""Proof that a published policy is the one that will be sampled from: what the engine holds against what was sent."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from plumbob.core.errors import RunFailed

MAX_ALLOWED = 0.0
"""Both sides are rounded alike, so they agree to the bit. Any slack of the size of a rounding would let a stale
neighbour pass: in bfloat16 one small update moves few elements, and those by one unit in the last place."""


class PublishError(RunFailed):
    """A worker does not hold the policy that the learner sent."""


@dataclass(frozen=True)
class PublishProof:
    """What was read back from inside one worker's engine after a load.

    Attributes:
        worker: whose engine it was.
        version: the policy version that was compared.
        num_tensors: how many tensors were sent, found and compared.
        max_abs_difference: over all elements.
        max_allowed: the bound that it was held to.
        seconds: of the whole load: writing, loading, reading back and comparing.
    """

    worker: str
    version: int
    num_tensors: int
    max_abs_difference: float
    max_allowed: float
    seconds: float


def max_difference(expected: Tensor, found: Tensor) -> float:
    """Largest |expected - found|. `found` may be larger: what is outside `expected` has to be zero. NaN stays NaN."""
    padded = torch.zeros_like(found)
    padded[tuple(slice(length) for length in expected.shape)] = expected
    return float((padded.double() - found.double()).abs().max())


def verify_publish(
    worker: str, version: int, sent: Iterable[str], differences: Mapping[str, float], seconds: float
) -> PublishProof:
    """Turn the differences that were found, by tensor name, into a proof.

    Raises:
        PublishError: a tensor that was sent was not found, or one differs; says which, and by how much.
    """
    names = list(sent)
    missing = [name for name in names if name not in differences]
    if missing:
        raise PublishError(
            f"worker {worker}, version {version}: the engine holds no {missing[0]} "
            f"({len(missing)} of {len(names)} tensors were sent and not loaded)"
        )
    for name, difference in differences.items():
        # Written so that NaN fails.
        if not difference <= MAX_ALLOWED:
            raise PublishError(
                f"worker {worker}, version {version}: the engine's {name} differs from the learner's "
                f"by {difference:.3g} (allowed: {MAX_ALLOWED}); the engine holds a stale or corrupt policy"
            )
    return PublishProof(worker, version, len(names), max(differences.values(), default=0.0), MAX_ALLOWED, seconds)
