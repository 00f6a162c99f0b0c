"""On-policy distillation by enumeration, in float64: what each token is graded, and the exact gradient of each form.

The optimum is the teacher itself. Policies and teachers are log-probs of next tokens, [P, S, V].
"""

import numpy as np

from plumbob.verify.optima.response_tree import Array, ResponseTree


def grades(tree: ResponseTree, policy: Array, teacher: Array, gamma: float) -> Array:
    """G_t = log teacher - log policy + gamma G_t+1 of each token of each response, [P, K, T]."""
    each = tree.along(teacher - policy)
    found, to_go = np.zeros_like(each), np.zeros(each.shape[:-1])
    for t in reversed(range(tree.depth)):
        to_go = each[..., t] + gamma * to_go
        found[..., t] = to_go
    return found * tree.mask


def state_kl(policy: Array, teacher: Array) -> Array:
    """KL(policy || teacher) of the next token at each state, [P, S]."""
    divergence: Array = (np.exp(policy) * (policy - teacher)).sum(-1)
    return divergence


def whole_kl_gradient(tree: ResponseTree, policy: Array, teacher: Array, counts: Array) -> Array:
    """Gradient by the logits [P, S, V] of the mean, over a step's tokens, of the KL at the state before each.

    p_j (log p_j - log q_j - KL) at a state, times how often the step passes it; which it passes is held constant.

    Args:
        counts: how often each response stands in the step, or its probability, [P, K].
    """
    passed = tree.collect(counts[..., None] * tree.mask).sum(-1)
    slopes = np.exp(policy) * (policy - teacher - state_kl(policy, teacher)[..., None])
    gradient: Array = passed[..., None] * slopes / (counts * tree.num_tokens).sum()
    return gradient


def likeliest_alone(teacher: Array, number: int) -> Array:
    """The teacher with all but its likeliest next tokens left out: log-probs [P, S, V], -inf for the others."""
    least = np.sort(teacher, axis=-1)[..., -number, None]
    kept = np.where(teacher >= least, np.exp(teacher), 0.0)
    with np.errstate(divide="ignore"):
        logprobs: Array = np.log(kept / kept.sum(-1, keepdims=True))
    return logprobs
