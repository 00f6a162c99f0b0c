"""A causal language model in up to three roles: policy, reference, and value (the critic); and teachers.

A role is an adapter on the base, or the base itself, or a model of its own beside it:

                  base        adapters on it           models beside it
 LoRA             reference   policy, value            -
 own weights      policy      -                        reference, value (or a head on the policy's states)

Teachers are frozen models beside the base, each of which grades rows of its own: it says how likely it finds the tokens
of a row (the role `teacher`), or how far the policy's distribution is from its own (the policy, asked with `teachers`).
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from plumbob.models.adapter import ModelRole
from plumbob.models.adapter_switch import activate
from plumbob.models.forward.shared_prompts import can_share, find_shared, states_after
from plumbob.models.forward.soft_prompts import soft_prompts_of
from plumbob.models.forward.vocabulary import vocabulary_of
from plumbob.models.logprobs import token_entropies, token_logprobs
from plumbob.models.padding import real_tokens_first


class RoleError(RuntimeError):
    """Roles were switched in the middle of a forward and its backward."""


class PolicyModel(nn.Module):
    """One base that is the policy, the reference or the critic, by its adapters; or other models for some of them.

    Inputs and outputs are [B, T] over whole sequences (prompt, then response, padded on either side); column t is about
    token t given the tokens before it, and a row's first token has 0.

    Attributes:
        vocabulary: how it makes logits; None where it makes them itself, in a way that is not known.
        role_models: role -> the model of its own that plays it.
        teachers: frozen models that grade, in the order of the numbers by which rows name theirs.

    Args:
        causal_lm: a transformers causal model, its adapters injected.
        adapters: role of the base -> name of its adapter; None switches adapters off.
        value_head: bias-free linear map from the hidden size to 1, when there is a critic.
    """

    def __init__(
        self, causal_lm: Any, adapters: Mapping[ModelRole, str | None], value_head: nn.Linear | None = None
    ) -> None:
        super().__init__()
        self.causal_lm = causal_lm
        self.value_head = value_head
        self.adapters = dict(adapters)
        self.role_models = nn.ModuleDict()
        self.teachers = nn.ModuleList()
        self.vocabulary = vocabulary_of(causal_lm)
        self._can_share = self.vocabulary is not None and can_share(self._backbone)
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
        self._role, self._num_live_graphs = role, 0
        try:
            with self._acting(role):
                yield
            if self._num_live_graphs:
                raise RoleError(f"role {role!r} ended before the backward of its forward: call backward inside it")
        finally:
            self._role = None

    @contextmanager
    def _acting(self, role: ModelRole) -> Iterator[None]:
        if role in self.role_models:
            with self._own_model(role).role(role):
                yield
            return
        if role != "teacher":
            activate(self.causal_lm, self.adapters[role])
        yield

    def _own_model(self, role: ModelRole) -> "PolicyModel":
        model = self.role_models[role]
        assert isinstance(model, PolicyModel)
        return model

    def give_model(self, role: ModelRole, model: "PolicyModel") -> None:
        """Have another model play a role, which it has by itself."""
        assert role in model.adapters and role not in self.adapters, "a role is played by one model"
        self.role_models[role] = model

    def add_teacher(self, teacher: "PolicyModel") -> None:
        """Put a frozen model beside this one, which grades as its own reference.

        Raises:
            ValueError: how one of the two makes its logits is not known, or it knows fewer words than this one. What it
                knows beyond these is left out, and its distribution is that over the others.
        """
        own, its = self.vocabulary, teacher.vocabulary
        if own is None or its is None:
            raise ValueError("how its logits, or the policy's, are made of the last hidden states is not known")
        if its.num_words < own.num_words:
            raise ValueError(f"its output is over {its.num_words} tokens, the policy's over {own.num_words}")
        teacher.vocabulary = its.of_first(own.num_words)
        self.teachers.append(teacher)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        action_mask: Tensor,
        temperature: float,
        teachers: Tensor | None = None,
        tasks: Tensor | None = None,
        with_entropies: bool = False,
    ) -> Tensor:
        """Log-probs (policy, reference, teacher) or values (value) [B, T] float32; 0 where `action_mask` is False.

        With `teachers`, the policy's are instead KL(policy || its row's teacher) in nats, of the whole next-token
        distributions that each asked token was drawn from.

        Args:
            input_ids: int64 [B, T].
            attention_mask: bool [B, T], True on real tokens.
            action_mask: bool [B, T], True on the tokens asked about; never on a row's first one.
            temperature: what the logits, also a teacher's, are divided by before the softmax.
            teachers: int64 [B], the number of each row's; given to the role `teacher`, or to the policy.
            tasks: int64 [B], the number of each row's, of a soft prompt that is another for each.
            with_entropies: log-probs come as [B, 2, T], beside each the entropy in nats of the distribution that its
                token was drawn from, without gradient.
        """
        if self._role is None:
            raise RoleError("a forward needs a role: use `with model.role(...)`")
        if self._role in self.role_models:
            found: Tensor = self.role_models[self._role](input_ids, attention_mask, action_mask, temperature)
            return found
        if (prompts := soft_prompts_of(self.causal_lm)) is not None:
            prompts.tasks = tasks
        columns = real_tokens_first(attention_mask)
        ids, attended, asked = (x.gather(1, columns) for x in (input_ids, attention_mask, action_mask))
        asked[:, 0] = False
        tokens = ids[asked]
        entropies = torch.zeros(len(tokens), device=ids.device) if with_entropies else None
        if self._role == "teacher":
            assert teachers is not None, "each row has its teacher"
            of_asked = self._by_teachers(ids, attended, asked, temperature, teachers)[asked]
        elif teachers is not None:
            of_asked = self._kl_to_teachers(ids, attended, asked, temperature, teachers)
        elif self._role != "value" and self.vocabulary is None:
            of_asked = self._by_own_logits(ids, attended, asked, temperature, entropies)
        else:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self._reads_policy):
                states = self._states_before(ids, attended, asked)
            is_value = self._role == "value"
            of_asked = self._values(states) if is_value else self._logprobs(states, tokens, temperature, entropies)
        outputs = _in_columns(of_asked, asked, columns, input_ids.shape)
        if outputs.requires_grad:
            self._num_live_graphs += 1
            outputs.register_hook(self._backward_began)
        if entropies is None:
            return outputs
        return torch.stack([outputs, _in_columns(entropies, asked, columns, input_ids.shape)], dim=1)

    @property
    def _reads_policy(self) -> bool:
        """Whether it acts as a critic whose states are the policy's own, which are not the critic's to change."""
        if self._role != "value" or "policy" not in self.adapters:
            return False
        return self.adapters["value"] == self.adapters["policy"]

    def _backward_began(self, _: Tensor) -> None:
        self._num_live_graphs -= 1

    def _states_before(self, ids: Tensor, attended: Tensor, asked: Tensor) -> Tensor:
        """The last hidden state before each asked token [N, H], row by row: what predicts it."""
        shared = find_shared(ids, asked) if self.shares_prompts else None
        if shared is None:
            num_read = _num_read(asked)
            inputs = {"input_ids": ids[:, :num_read], "attention_mask": attended[:, :num_read].long()}
            states = self._backbone(**inputs, use_cache=False).last_hidden_state
            before = nn.functional.pad(asked, (0, 1))[:, 1 : num_read + 1]
        else:
            states = states_after(self._backbone, ids, shared)
            columns = shared.lengths[:, None] + torch.arange(states.shape[1], device=ids.device)
            before = nn.functional.pad(asked, (0, 1)).gather(1, columns.clamp(max=asked.shape[1]))
        return states.flatten(0, 1).index_select(0, before.flatten().nonzero().squeeze(1))

    @property
    def shares_prompts(self) -> bool:
        """Whether rows with the same prompt are computed together.

        Not where activations are computed anew (gradient checkpointing): they leave no keys and values to read. Nor
        where ranks share the weights (ZeRO-3), which all gather for each pass: one that shares makes two. Nor where
        each task has a soft prompt of its own.
        """
        prompts = soft_prompts_of(self.causal_lm)
        if prompts is not None and prompts.has_tasks:
            return False
        if not self._can_share or (self.training and self._backbone.is_gradient_checkpointing):
            return False
        return not hasattr(next(self._backbone.parameters()), "ds_id")

    @property
    def _backbone(self) -> Any:
        return getattr(self.causal_lm, "get_base_model", lambda: self.causal_lm)().base_model

    def _logprobs(self, states: Tensor, tokens: Tensor, temperature: float, entropies: Tensor | None) -> Tensor:
        assert self.vocabulary is not None
        return self.vocabulary.logprobs(states, tokens, temperature, entropies)

    def _teachers_of(self, numbers: Tensor) -> Iterator[tuple["PolicyModel", Tensor, Tensor]]:
        """Each teacher that is to compute, in its role: with its rows [b], and with those that it is to be given.

        These are the same, but for a teacher without rows whose weights all ranks gather together (ZeRO-3): other ranks
        may have rows for it, and it is given the first.
        """
        for number, teacher in enumerate(self.teachers):
            assert isinstance(teacher, PolicyModel)
            rows = (numbers == number).nonzero().squeeze(1)
            if len(rows) or hasattr(next(teacher.parameters()), "ds_id"):
                with teacher.role("reference"):
                    yield teacher, rows, rows if len(rows) else numbers.new_zeros(1)

    def _by_teachers(self, ids: Tensor, attended: Tensor, asked: Tensor, temperature: float, numbers: Tensor) -> Tensor:
        """Log-probs [B, T], each row's by its own teacher."""
        found = torch.zeros(ids.shape, dtype=torch.float32, device=ids.device)
        for teacher, rows, given in self._teachers_of(numbers):
            logprobs = teacher(ids[given], attended[given], asked[given], temperature)
            found[rows] = logprobs[: len(rows)]
        return found

    def _kl_to_teachers(
        self, ids: Tensor, attended: Tensor, asked: Tensor, temperature: float, numbers: Tensor
    ) -> Tensor:
        """KL(policy || its row's teacher) at each asked token [N], row by row."""
        assert self.vocabulary is not None, "checked with the teachers"
        states = self._states_before(ids, attended, asked)
        rows_of_states = asked.nonzero()[:, 0]
        found = torch.zeros(len(states), dtype=torch.float32, device=states.device)
        for teacher, rows, given in self._teachers_of(numbers):
            of_these = torch.isin(rows_of_states, rows).nonzero().squeeze(1)
            assert teacher.vocabulary is not None, "checked with the teachers"
            with torch.no_grad():
                its = teacher._states_before(ids[given], attended[given], asked[given])[: len(of_these)]
            kl = self.vocabulary.reverse_kl(states[of_these], teacher.vocabulary, its, temperature)
            found = found.index_add(0, of_these, kl)
        return found

    def _values(self, states: Tensor) -> Tensor:
        assert self.value_head is not None, "this model has no critic"
        return self.value_head(states.to(self.value_head.weight.dtype)).squeeze(-1).float()

    def _by_own_logits(
        self, ids: Tensor, attended: Tensor, asked: Tensor, temperature: float, entropies: Tensor | None
    ) -> Tensor:
        """Log-probs [N] from logits that the model makes itself: of every column from the first asked one on."""
        first = int(asked.any(dim=0).to(torch.uint8).argmax()) - 1
        first = first if first >= 0 else ids.shape[1] - 1
        logits = self.causal_lm(
            input_ids=ids,
            attention_mask=attended.long(),
            logits_to_keep=ids.shape[1] - first,
            use_cache=False,
        ).logits
        if entropies is not None:
            entropies.copy_(token_entropies(logits, temperature)[asked[:, first:]])
        return token_logprobs(logits, ids[:, first:], temperature)[asked[:, first:]]


def _in_columns(of_asked: Tensor, asked: Tensor, columns: Tensor, shape: torch.Size) -> Tensor:
    """What is known of each asked token [N], at its place in rows of that shape [B, T]; 0 elsewhere."""
    found = of_asked.new_zeros(asked.shape).masked_scatter(asked, of_asked)
    return found.new_zeros(shape).scatter(1, columns, found)


def _num_read(asked: Tensor) -> int:
    """Columns of bool [B, T] that stand before an asked token, at least one: what comes later predicts nothing."""
    columns = asked.any(dim=0).nonzero()
    return max(int(columns[-1]), 1) if len(columns) else 1


def new_value_head(hidden_size: int, generator: torch.Generator) -> nn.Linear:
    """A linear head whose first values are near zero, so that the critic starts by agreeing with nothing."""
    head = nn.Linear(hidden_size, 1, bias=False)
    with torch.no_grad():
        head.weight.normal_(0.0, 0.01 / math.sqrt(hidden_size), generator=generator)
    return head
