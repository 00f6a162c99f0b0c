"""Every response that a tiny vocabulary and a length limit allow, as float64 tables, and distances between policies.

P prompts, K responses, S states (what has been written so far), V tokens, T = depth. A policy is a table of next-token
log-probs [P, S, V] or, equally, the log-probs of whole responses [P, K]. Numpy alone: nothing of the trainers is in
here.
"""

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

EOS = 0


@dataclass(frozen=True)
class ResponseTree:
    """All responses of at most `depth` tokens: those that end in EOS, which counts, and those cut at `depth` without
    one.

    Attributes:
        vocab_size: tokens, token 0 (EOS) among them.
        depth: the limit on a response's tokens.
    """

    vocab_size: int
    depth: int

    @cached_property
    def states(self) -> tuple[tuple[int, ...], ...]:
        """What may be written before a next token is chosen: shorter before longer, the empty one first."""
        words = range(1, self.vocab_size)
        return tuple(state for length in range(self.depth) for state in itertools.product(words, repeat=length))

    @cached_property
    def responses(self) -> tuple[tuple[int, ...], ...]:
        """The responses' token ids: first each state followed by EOS, in the states' order, then those that are cut."""
        ended = tuple((*state, EOS) for state in self.states)
        return ended + tuple(itertools.product(range(1, self.vocab_size), repeat=self.depth))

    @cached_property
    def num_tokens(self) -> Array:
        """|y|, EOS counted, [K]."""
        return np.array([len(response) for response in self.responses], dtype=np.float64)

    @cached_property
    def ends(self) -> NDArray[np.bool_]:
        """Whether a response ends in EOS, instead of being cut, [K]."""
        return np.array([response[-1] == EOS for response in self.responses])

    @cached_property
    def paths(self) -> NDArray[np.int64]:
        """Where each response's tokens stand in a table flattened to [S * V], [K, T]; S * V behind a response's end."""
        offset = {state: index * self.vocab_size for index, state in enumerate(self.states)}
        paths = np.full((len(self.responses), self.depth), len(self.states) * self.vocab_size, dtype=np.int64)
        for row, response in zip(paths, self.responses, strict=True):
            row[: len(response)] = [offset[response[:t]] + token for t, token in enumerate(response)]
        return paths

    @cached_property
    def mask(self) -> Array:
        """1 on a response's tokens, 0 behind its end, [K, T]."""
        return (self.paths < len(self.states) * self.vocab_size).astype(np.float64)

    @cached_property
    def children(self) -> NDArray[np.int64]:
        """Where a token leads from a state, [S, V]: to state c >= 0, or to response k, kept as ~k < 0."""
        index_of = {response: ~index for index, response in enumerate(self.responses)}
        index_of |= {state: index for index, state in enumerate(self.states)}
        return np.array([[index_of[(*state, token)] for token in range(self.vocab_size)] for state in self.states])

    def of_next_tokens(self, state: int, states: Array, responses: Array) -> Array:
        """What each next token of a state leads to, [P, V], of `states` [P, S] and, at an end, `responses` [P, K]."""
        child = self.children[state]
        return np.where(child >= 0, states[:, np.maximum(child, 0)], responses[:, np.maximum(~child, 0)])

    def along(self, table: Array) -> Array:
        """The entries [..., S, V] that each response's tokens pass: [..., K, T], 0 behind a response's end."""
        flat = table.reshape(*table.shape[:-2], -1)
        return np.concatenate([flat, np.zeros((*flat.shape[:-1], 1))], axis=-1)[..., self.paths]

    def collect(self, tokens: Array) -> Array:
        """The transpose of `along`: [..., K, T] summed at the entries that the tokens pass, [..., S, V]."""
        size = len(self.states) * self.vocab_size
        rows = tokens.reshape(-1, tokens.shape[-2] * tokens.shape[-1])
        flat = np.array([np.bincount(self.paths.ravel(), weights=row, minlength=size + 1)[:size] for row in rows])
        return flat.reshape(*tokens.shape[:-2], len(self.states), self.vocab_size)

    def response_logprobs(self, policy: Array) -> Array:
        """Log-probs of whole responses [..., K] from next-token log-probs [..., S, V]."""
        summed: Array = self.along(policy).sum(-1)
        return summed

    def next_token_logprobs(self, response_logprobs: Array) -> Array:
        """Next-token log-probs [..., S, V] of a distribution over responses [..., K]: the inverse of
        `response_logprobs`.

        Every probability must be above 0, as those of a softmax are.
        """
        mass = self.collect(np.exp(response_logprobs)[..., None] * self.mask)
        return np.log(mass) - np.log(mass.sum(-1, keepdims=True))

    def logit_gradient(self, policy: Array, tokens: Array) -> Array:
        """d/dlogits [..., S, V] of sum_y sum_t tokens[y, t] log pi(y_t | s_t), for pi = softmax(logits) at each state.

        Args:
            policy: log pi, [..., S, V].
            tokens: what multiplies each token's log-prob, held constant, [..., K, T]; [..., K, 1] for a whole response.
        """
        pulled = self.collect(tokens * self.mask)
        return pulled - np.exp(policy) * pulled.sum(-1, keepdims=True)


@dataclass(frozen=True, eq=False)
class Instance:
    """One problem whose best policy is known.

    Attributes:
        tree: the responses.
        prompts: token ids of each prompt, P of them.
        reference: log pi_ref(y | x) of every response, [P, K]; sums to 1 within 1e-5 for each prompt.
        rewards: r(x, y), the total shaped reward of the response, [P, K].
        beta: weight of KL(pi || pi_ref) against the reward.
    """

    tree: ResponseTree
    prompts: tuple[tuple[int, ...], ...]
    reference: Array
    rewards: Array
    beta: float

    def __post_init__(self) -> None:
        shape = (len(self.prompts), len(self.tree.responses))
        if self.reference.shape != shape or self.rewards.shape != shape:
            raise ValueError(
                f"reference and rewards need one number for each of {shape[0]} prompts and {shape[1]} responses, "
                f"got {self.reference.shape} and {self.rewards.shape}"
            )
        total = np.exp(self.reference).sum(-1)
        if np.abs(total - 1).max() > 1e-5:
            raise ValueError(f"the reference's probabilities of all responses sum to {total}, not to 1 within 1e-5")

    @cached_property
    def optimum(self) -> Array:
        """log pi* of every response, [P, K]."""
        return tilted(self.reference, self.rewards, self.beta)

    @cached_property
    def reference_policy(self) -> Array:
        """log pi_ref of every next token, [P, S, V]."""
        return self.tree.next_token_logprobs(self.reference)


def single_token_prompts(tree: ResponseTree, num_prompts: int) -> tuple[tuple[int, ...], ...]:
    """Prompts of one token each, all different: a RoPE model without BOS cannot tell `1` from `11`."""
    if num_prompts >= tree.vocab_size:
        raise ValueError(f"{tree.vocab_size} tokens give at most {tree.vocab_size - 1} one-token prompts")
    return tuple((token,) for token in range(1, num_prompts + 1))


def seeded_rewards(tree: ResponseTree, num_prompts: int, seed: int) -> Array:
    """Rewards drawn uniformly from [-1, 1], [P, K]."""
    return np.random.default_rng(seed).uniform(-1.0, 1.0, size=(num_prompts, len(tree.responses)))


def log_normalised(logits: Array) -> Array:
    """logits - log sum exp(logits) over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def tilted(reference: Array, rewards: Array, beta: float) -> Array:
    """log pi*, pi*(y) proportional to pi_ref(y) exp(r(y) / beta) (Rafailov et al. 2023, arXiv 2305.18290, eq. 4)."""
    return log_normalised(reference + rewards / beta)


def total_variation(policy: Array, other: Array) -> Array:
    """Half the summed absolute difference of two distributions given by log-probs [..., K]; [...]."""
    distance: Array = 0.5 * np.abs(np.exp(policy) - np.exp(other)).sum(-1)
    return distance


def kl(policy: Array, other: Array) -> Array:
    """KL(policy || other) in nats, from log-probs [..., K]; [...]."""
    divergence: Array = (np.exp(policy) * (policy - other)).sum(-1)
    return divergence


def given_end(tree: ResponseTree, policy: Array) -> Array:
    """Log-probs of the responses that end, given that one does: of [P, K] those of the E that end, [P, E]."""
    return log_normalised(policy[:, tree.ends])


def gap_ratio(policy: Array, optimum: Array, reference: Array) -> float:
    """(J* - J) / (J* - J_ref), J the mean over prompts of E r - beta KL(pi || pi_ref); log-probs [P, K].

    J* - J is beta times the mean over prompts of KL(pi || pi*), so that beta and the rewards drop out.
    """
    return float(kl(policy, optimum).mean() / kl(reference, optimum).mean())


def soft_values(instance: Instance) -> Array:
    """V*(s) = beta log sum over the responses behind s of pi_ref(y | s) exp(r(y) / beta), [P, S]: the best critic.

    It is the expected reward still to come, less beta times the KL still to come, under pi*.
    """
    tree, beta = instance.tree, instance.beta
    highest = instance.rewards.max(-1, keepdims=True)
    mass = np.exp(instance.reference)[..., None] * tree.mask
    lifted = mass * np.exp((instance.rewards - highest) / beta)[..., None]
    ratio = tree.collect(lifted).sum(-1) / tree.collect(mass).sum(-1)
    values: Array = beta * np.log(ratio) + highest
    return values
