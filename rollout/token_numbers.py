"""Numbers of single tokens that follow from those in the journal: arrays alone, for whoever shows them."""

import numpy as np
from numpy.typing import NDArray


def td_errors(
    rewards: NDArray[np.float32], values: NDArray[np.float32], action_mask: NDArray[np.bool_], gamma: float
) -> NDArray[np.float32]:
    """delta_t = r_t + gamma V_t' - V_t of one response, float32 [T]; 0 on what the policy did not write.

    t' is the next token that the policy wrote, and V is 0 after the last: what `gae` sums up (Schulman et al. 2015,
    arXiv 1506.02438, equation 11).

    Args:
        rewards, values: `token_rewards` and `values` of the journal's row.
        gamma: the estimator's.
    """
    found = np.zeros(len(action_mask), np.float32)
    own = values[action_mask]
    found[action_mask] = rewards[action_mask] + np.float32(gamma) * np.append(own[1:], np.float32(0)) - own
    return found
