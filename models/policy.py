"""A causal language model in up to three roles on one base: policy, reference, and value (the critic)."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from plumbob.models.adapter import ModelRole
from plumbob.models.adapter_switch import activate
from plumbob.models.logprobs import token_logprobs
from plumbob.models.padding import real_tokens_first


class RoleError(RuntimeError):
    """Roles were switched in the middle of a forward and its backward."""


class PolicyModel(nn.Module):
    """One base, whose adapters make it the policy, the reference or the critic.

    Inputs and outputs are [B, T] over whole sequences (prompt, then response, padded on either side); column t is about
    token t given the tokens before it, and a row's first token has 0.

    Args:
        causal_lm: a transformers causal model, its adapters injected.
        adapters: role -> name of its adapter; None switches adapters off.
        value_head: bias-free linear map from the hidden size to 1, when there is a critic.
    """

    def __init__(
        self, causal_lm: Any, adapters: Mapping[ModelRole, str | None], value_head: nn.Linear | None = None
    ) -> None:
        super().__init__()
        self.causal_lm = causal_lm
        self.value_head = value_head
        self.adapters = dict(adapters)
        self._role: ModelRole | None = None
        self._num_live_graphs = 0

    @contextmanager
    def role(self, role: ModelRole) -> Iterator[None]:
        """Act in one role. A forward with gradients must have its backward before the role ends.

        Raises:
            RoleError: another role is active, or the role ended while its graph was waiting for a backward. Gradient
                checkpointing runs the forward again in the backward, and would run it in the wrong role without a word.
        """
        if self._role is not None:
            raise RoleError(f"role {role!r} was asked for inside role {self._role!r}: end that one first")
        activate(self.causal_lm, self.adapters[role])
        self._role, self._num_live_graphs = role, 0
        try:
            yield
            if self._num_live_graphs:
                raise RoleError(f"role {role!r} ended before the backward of its forward: call backward inside it")
        finally:
            self._role = None

    def forward(self, input_ids: Tensor, attention_mask: Tensor, action_mask: Tensor, temperature: float) -> Tensor:
        """Log-probs (policy, reference) or values (value) [B, T] float32; 0 where `action_mask` is False.

        Args:
            input_ids: int64 [B, T].
            attention_mask: bool [B, T], True on real tokens.
            action_mask: bool [B, T], True on the tokens asked about; never on a row's first one.
            temperature: what the logits are divided by before the softmax.
        """
        if self._role is None:
            raise RoleError("a forward needs a role: use `with model.role(...)`")
        columns = real_tokens_first(attention_mask)
        ids, attended, asked = (x.gather(1, columns) for x in (input_ids, attention_mask, action_mask))
        if self._role == "value":
            outputs = self._values(ids, attended)
        else:
            outputs = self._logprobs(ids, attended, asked, temperature)
        outputs = outputs.new_zeros(input_ids.shape).scatter(1, columns, torch.where(asked, outputs, 0.0))
        if outputs.requires_grad:
            self._num_live_graphs += 1
            outputs.register_hook(self._backward_began)
        return outputs

    def _backward_began(self, _: Tensor) -> None:
        self._num_live_graphs -= 1

    def _logprobs(self, input_ids: Tensor, attention_mask: Tensor, action_mask: Tensor, temperature: float) -> Tensor:
        # Columns before the first action need no vocabulary projection: in a chat that is most of them.
        asked = action_mask.any(dim=0).nonzero()
        first = max(int(asked[0]) - 1, 0) if len(asked) else input_ids.shape[1] - 1
        logits = self.causal_lm(
            input_ids=input_ids,
            attention_mask=attention_mask.long(),
            logits_to_keep=input_ids.shape[1] - first,
            use_cache=False,
        ).logits
        return nn.functional.pad(token_logprobs(logits, input_ids[:, first:], temperature), (first, 0))

    def _values(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        assert self.value_head is not None, "this model has no critic"
        backbone = getattr(self.causal_lm, "get_base_model", lambda: self.causal_lm)().base_model
        hidden = backbone(input_ids=input_ids, attention_mask=attention_mask.long(), use_cache=False).last_hidden_state
        values = self.value_head(hidden[:, :-1].to(self.value_head.weight.dtype)).squeeze(-1).float()
        return nn.functional.pad(values, (1, 0))


def new_value_head(hidden_size: int, generator: torch.Generator) -> nn.Linear:
    """A linear head whose first values are near zero, so that the critic starts by agreeing with nothing."""
    head = nn.Linear(hidden_size, 1, bias=False)
    with torch.no_grad():
        head.weight.normal_(0.0, 0.01 / math.sqrt(hidden_size), generator=generator)
    return head
