"""The vocabulary projection: log-probs of asked tokens, and KL of whole distributions, a portion at a time."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

PORTION = 2**23
"""Logits that are taken together, but at least one token's: 32 MiB in float32."""

AGREEMENT = {torch.float32: 1e-5}
"""How far a head may be from the model's own logits, as a share of the largest; further in coarser numbers."""

Measure = Callable[[slice, Tensor, bool], tuple[Tensor, Tensor | None]]
"""(which states, log softmax of theirs [n, V], whether its slope is asked for) -> what is measured of each, [n], and
the gradient of that by the logits over the temperature, [n, V]. May overwrite what it is given."""


@dataclass(frozen=True)
class Vocabulary:
    """How a model makes logits of its last hidden states: cap tanh(scale head(h) / cap), or without the cap.

    Attributes:
        head: the output embedding, with an adapter where it has one.
        scale: what the head's output is multiplied by (Cohere, Granite).
        cap: the soft bound on what comes of that (Gemma 2); None is none.
        num_words: V: the words that a distribution is over, the head's first.
    """

    head: nn.Module
    scale: float
    cap: float | None
    num_words: int

    def logprobs(self, hidden: Tensor, tokens: Tensor, temperature: float, entropies: Tensor | None = None) -> Tensor:
        """log softmax(logits / temperature) of one token after each state: [N, H] and int64 [N] -> float32 [N].

        Where the head is frozen, the gradient of a token's log-prob by its state is taken along with it: one [N, H]
        tensor is kept, and the backward multiplies no matrices. Otherwise the backward computes the logits again, if
        they are of several portions.

        Args:
            entropies: float32 [N], where -sum_j p_j log p_j of each whole distribution is put, in nats; None asks for
                none.
        """
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        size = max(1, PORTION // self.num_words)
        if self._is_frozen_matrix():
            found: Tensor = _OfFrozenHead.apply(hidden, self, temperature, size, _logprob_of(tokens, entropies))
            return found
        if len(tokens) <= size:
            return self._logprobs(hidden, tokens, temperature, entropies)
        parts: list[Tensor] = []
        for at in (slice(start, start + size) for start in range(0, len(tokens), size)):
            # Not an argument of the checkpoint, which would keep it for the backward.
            into = None if entropies is None else entropies[at]
            portion = partial(self._logprobs, temperature=temperature, entropies=into)
            parts.append(checkpoint(portion, hidden[at], tokens[at], use_reentrant=False))
        return torch.cat(parts)

    def reverse_kl(self, hidden: Tensor, other: "Vocabulary", other_hidden: Tensor, temperature: float) -> Tensor:
        """KL(p || q) = sum_j p_j (log p_j - log q_j) after each state: [N, H] and [N, H'] -> float32 [N].

        p is of these states and q of the other model's, each at the temperature; the sum is over all words. The
        gradient is by p's states alone: by its logits over the temperature p_j (log p_j - log q_j - KL).
        """
        if self.num_words != other.num_words:
            raise ValueError(f"distributions over {self.num_words} and {other.num_words} words have no KL")
        size = max(1, PORTION // self.num_words)
        if self._is_frozen_matrix():
            measure = _kl_to(other, other_hidden, temperature)
            found: Tensor = _OfFrozenHead.apply(hidden, self, temperature, size, measure)
            return found
        if len(hidden) <= size:
            return self._reverse_kl(hidden, other_hidden, other, temperature)
        parts = zip(hidden.split(size), other_hidden.split(size), strict=True)
        return torch.cat(
            [checkpoint(self._reverse_kl, *part, other, temperature, use_reentrant=False) for part in parts]
        )

    def of_first(self, num_words: int) -> "Vocabulary":
        """The same over the head's first words alone: embeddings are often padded, further for a larger model."""
        return replace(self, num_words=num_words)

    def log_softmax(self, hidden: Tensor, temperature: float) -> Tensor:
        """[n, H] -> float32 [n, V]."""
        return torch.log_softmax(self.logits(self.head(hidden)) / temperature, dim=-1)

    def logits(self, projected: Tensor) -> Tensor:
        """Of what the head gives, float32."""
        logits = projected[..., : self.num_words].float()
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)

    def _logprobs(self, hidden: Tensor, tokens: Tensor, temperature: float, entropies: Tensor | None) -> Tensor:
        log_softmax = self.log_softmax(hidden, temperature)
        if entropies is not None:
            with torch.no_grad():
                entropies.copy_(entropy_of(log_softmax.exp(), log_softmax))
        return log_softmax.gather(-1, tokens[:, None]).squeeze(-1)

    def _reverse_kl(self, hidden: Tensor, other_hidden: Tensor, other: "Vocabulary", temperature: float) -> Tensor:
        own = self.log_softmax(hidden, temperature)
        with torch.no_grad():
            theirs = other.log_softmax(other_hidden, temperature)
        return (own.exp() * (own - theirs)).sum(dim=-1)

    def _is_frozen_matrix(self) -> bool:
        """A plain linear layer that is whole here (ZeRO-3 gathers a layer's weight when it is called) and stays."""
        return type(self.head) is nn.Linear and not any(
            p.requires_grad or hasattr(p, "ds_id") for p in self.head.parameters()
        )


def vocabulary_of(causal_lm: Any) -> Vocabulary | None:
    """Found by the model's own logits of a few tokens; None where they are made in a way that is not known here."""
    model = getattr(causal_lm, "get_base_model", lambda: causal_lm)()
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is None:
        return None
    config = model.config.get_text_config()
    was_training = causal_lm.training
    causal_lm.eval()
    with torch.no_grad():
        ids = torch.arange(4, device=next(model.parameters()).device)[None] % config.vocab_size
        own = causal_lm(input_ids=ids, use_cache=False).logits.float()
        projected = head(model.base_model(input_ids=ids, use_cache=False).last_hidden_state)
    causal_lm.train(was_training)
    bound = AGREEMENT.get(projected.dtype, 2e-2) * float(own.abs().max())
    for scale in _scales(config):
        for cap in {getattr(config, "final_logit_softcapping", None), None}:
            vocabulary = Vocabulary(head, scale, cap, own.shape[-1])
            if projected.shape == own.shape and float((vocabulary.logits(projected) - own).abs().max()) <= bound:
                return vocabulary
    return None


def _scales(config: Any) -> list[float]:
    """What families multiply logits by, and 1."""
    times, over = getattr(config, "logit_scale", None), getattr(config, "logits_scaling", None)
    return [scale for scale in (times, 1 / over if over else None) if scale] + [1.0]


def entropy_of(probs: Tensor, log_softmax: Tensor) -> Tensor:
    """-sum_j p_j log p_j in nats: [n, V] each -> [n], without another [n, V]."""
    with torch.autocast(probs.device.type, enabled=False):  # Which makes of both bfloat16.
        return -torch.linalg.vecdot(probs, log_softmax)


def _logprob_of(tokens: Tensor, entropies: Tensor | None) -> Measure:
    """log p(y), whose slope is onehot(y) - p. `entropies` [N]: where they are put; None asks for none."""

    def measure(rows: slice, log_softmax: Tensor, needs_slope: bool) -> tuple[Tensor, Tensor | None]:
        chosen = tokens[rows, None]
        logprobs = log_softmax.gather(-1, chosen).squeeze(-1)
        if entropies is not None:
            probs = log_softmax.exp()
            entropies[rows] = entropy_of(probs, log_softmax)
        elif needs_slope:
            probs = log_softmax.exp_()
        if not needs_slope:
            return logprobs, None
        slope = probs.neg_()
        return logprobs, slope.scatter_add_(-1, chosen, torch.ones_like(chosen, dtype=slope.dtype))

    return measure


def _kl_to(other: Vocabulary, hidden: Tensor, temperature: float) -> Measure:
    """KL(p || q), whose slope is p (log p - log q - KL)."""

    def measure(rows: slice, log_softmax: Tensor, needs_slope: bool) -> tuple[Tensor, Tensor | None]:
        difference = log_softmax - other.log_softmax(hidden[rows], temperature)
        probs = log_softmax.exp_()
        kl = (probs * difference).sum(dim=-1)
        return kl, probs.mul_(difference - kl[:, None]) if needs_slope else None

    return measure


class _OfFrozenHead(torch.autograd.Function):
    """What is measured of each state, with its gradient (scale / T) W^T ((1 - (z / cap)^2) slope), z the capped logits.

    The gradient is taken along in the forward, so that no logits are kept.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, vocabulary: Vocabulary, temperature: float, size: int, measure: Measure
    ) -> Tensor:
        head: Any = vocabulary.head
        product = (
            torch.get_autocast_dtype(hidden.device.type) if torch.is_autocast_enabled(hidden.device.type) else None
        )
        weight, bias, states = (
            x if x is None or product is None else x.to(product) for x in (head.weight, head.bias, hidden)
        )
        needs_gradient = ctx.needs_input_grad[0]
        gradient = torch.empty_like(hidden) if needs_gradient else None
        measured = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), size):
            rows = slice(start, start + size)
            logits = vocabulary.logits(functional.linear(states[rows], weight, bias))
            measured[rows], slope = measure(rows, torch.log_softmax(logits / temperature, dim=-1), needs_gradient)
            if gradient is not None:
                assert slope is not None
                if vocabulary.cap is not None:
                    slope *= 1 - (logits / vocabulary.cap) ** 2
                by_states = slope.to(weight.dtype) @ weight[: vocabulary.num_words]
                gradient[rows] = by_states.to(gradient.dtype) * (vocabulary.scale / temperature)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return measured

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (grad[:, None] * gradient).to(gradient.dtype), None, None, None, None
