"""What single tokens of a step amount to (TokenMetrics): measured by the ranks that have them, over all rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from plumbob.trainers.algorithms.whole_batch import ONE_RANK, WholeBatch, exact_mean
from plumbob.trainers.online.experience import LogprobsAndValues
from plumbob.trainers.online.trajectories import Trajectories, sampler_gaps


@dataclass(frozen=True)
class TokenMetrics:
    """Of a whole step.

    Attributes:
        entropy, staleness_mean, staleness_max, sampler_gap_fresh: as in `StepMetrics`.
        took_sampler: whether the sampler's log-probs were learnt with, and some rows alone were compared.
        teachers: how far the policy is from its teachers, by the names of metrics; empty where there are none.
    """

    entropy: float
    staleness_mean: float
    staleness_max: float
    sampler_gap_fresh: float
    took_sampler: bool = False
    teachers: Mapping[str, float] = field(default_factory=dict)


def measure_tokens(
    trajectories: Trajectories,
    computed: LogprobsAndValues,
    version: int,
    batch: WholeBatch = ONE_RANK,
    teachers: Mapping[str, float] | None = None,
) -> TokenMetrics:
    """Of the rows given and those of the other ranks.

    Args:
        version: of the policy that learnt from them.
        teachers: as of `TokenMetrics`.
    """
    mask, versions = trajectories.action_mask, trajectories.versions
    behind = torch.where(mask, version - versions, 0)
    gaps = sampler_gaps(trajectories, computed.compared)
    return TokenMetrics(
        entropy=-exact_mean(computed.logprobs, mask, batch),
        staleness_mean=exact_mean(behind, mask, batch),
        staleness_max=float(batch.gather(behind.amax(dim=1)).max()),
        sampler_gap_fresh=exact_mean(gaps.sizes, gaps.mask & (versions == version), batch),
        took_sampler=computed.probed is not None,
        teachers=teachers or {},
    )
