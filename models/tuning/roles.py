"""Policy models from what a stage begins with: which weights are trained, and which model or adapter has each role."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

import torch
from peft import PeftConfig
from torch import nn

from plumbob.core.errors import UserError
from plumbob.models.adapter import ModelRole
from plumbob.models.loading import OpenedPolicy, check_full, load_causal_lm
from plumbob.models.policy import PolicyModel, new_value_head
from plumbob.models.tuning.peft_adapters import (
    adapter_parameter_names,
    add_adapters,
    config_of,
    copy_into,
    without_dropout,
)
from plumbob.models.tuning.prompt_encoders import begin_alike


def policy_of_weights(
    opened: OpenedPolicy,
    trained: Callable[[Any, ModelRole], Collection[str]],
    critic: Literal["model", "head"],
    roles: tuple[ModelRole, ...],
    seed: int,
) -> PolicyModel:
    """A model whose own weights are the policy; each other role that it is to have stands beside it.

    The reference is the same model, frozen. The critic is the same model too, with a linear head, of which as much is
    trained; or the head alone, on the policy's last hidden states: its loss is not to change what the policy computes.

    A policy with a reference has no dropout, as of `adapted_policy`.

    Args:
        trained: a transformers model and a role of it -> names of those of its parameters that are trained.
        critic: what the critic is, where there is one.
        seed: of the head.

    Raises:
        UserError: it cannot be loaded, or is an adapter, whose base would have to be merged with it first.
    """
    check_full(opened)
    base = load_causal_lm(opened, with_dropout="reference" not in roles)
    _train_only(base, trained(base, "policy"))
    own_roles: dict[ModelRole, str | None] = {"policy": None}
    head = _head_for(base, seed) if "value" in roles else None
    if head is None or critic == "model":
        policy = PolicyModel(base, own_roles)
    else:
        policy = PolicyModel(base, own_roles | {"value": None}, head)
    if "reference" in roles:
        policy.give_model("reference", frozen_reference(opened))
    if head is not None and critic == "model":
        trunk = load_causal_lm(opened, with_dropout=False)
        _train_only(trunk, trained(trunk, "value"))
        policy.give_model("value", PolicyModel(trunk, {"value": None}, head))
    return policy


def _train_only(model: nn.Module, names: Collection[str]) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)


def _head_for(base: Any, seed: int) -> nn.Linear:
    """In the model's dtype, so that the optimizer's groups are each of one."""
    head = new_value_head(base.config.get_text_config().hidden_size, torch.Generator().manual_seed(seed))
    return head.to(base.dtype)


def adapted_policy(
    opened: OpenedPolicy,
    new_adapter: PeftConfig,
    roles: tuple[ModelRole, ...],
    seed: int,
    begin: Callable[[Any, tuple[str, ...]], None] | None = None,
) -> PolicyModel:
    """One frozen base in several roles.

    From a full model, the policy is a new adapter, which changes nothing before the first update, and the reference is
    the base with adapters off. From an adapter, the policy begins as its copy and the reference is a frozen copy beside
    it; rank, scale and targets are then that adapter's. The critic is an adapter of its own with a linear head.

    A new soft prompt does change what the base computes: the reference is then a frozen copy of how it began, and the
    critic begins as another copy.

    A policy with a reference has no dropout, neither the base's nor the adapters': the log-probs that an update is
    compared with are made without, and would differ from it before it began.

    Args:
        new_adapter: what is put on a full model.
        begin: gives new adapters, by their names, where they begin, if that is not where PEFT lets them.

    Raises:
        UserError: the model cannot be loaded.
    """
    has_reference = "reference" in roles
    source = opened.source
    base = load_causal_lm(opened, with_dropout=not has_reference)
    hidden_size = base.config.get_text_config().hidden_size
    named: dict[ModelRole, str | None] = {role: role for role in roles}
    config = new_adapter if source.adapter is None else config_of(source)
    is_prompt = config.is_prompt_learning
    if source.adapter is None and has_reference and not is_prompt:
        named["reference"] = None
    if has_reference:
        config = without_dropout(config)
    torch.manual_seed(seed)
    names = tuple(name for name in named.values() if name is not None)
    model = add_adapters(base, config, names)
    if source.adapter is None and begin is not None:
        begin(model, names)
    if source.adapter is not None:
        copies = ("policy", "reference", "value") if is_prompt else ("policy", "reference")
        copy_into(model, source.adapter, tuple(role for role in copies if role in named))
    elif is_prompt:
        begin_alike(model, names)
    head = new_value_head(hidden_size, torch.Generator().manual_seed(seed)) if "value" in named else None
    policy = PolicyModel(model, named, head)
    learnt = {name for group in trainable_groups(policy).values() for name in group}
    for name, parameter in policy.named_parameters():
        parameter.requires_grad_(name in learnt)
    return policy


def frozen_reference(opened: OpenedPolicy) -> PolicyModel:
    """A model that only computes, as the reference: a full model, or a base with one adapter on it; without dropout."""
    base, adapter = load_causal_lm(opened, with_dropout=False), opened.source.adapter
    if adapter is None:
        return PolicyModel(base, {"reference": None}).requires_grad_(False)
    model = add_adapters(base, without_dropout(config_of(opened.source)), ("reference",))
    copy_into(model, adapter, ("reference",))
    return PolicyModel(model, {"reference": "reference"}).requires_grad_(False)


def add_teachers(policy: PolicyModel, teachers: Sequence[OpenedPolicy]) -> None:
    """Load frozen models and put them beside a policy, which they grade.

    Raises:
        UserError: one cannot be loaded, or cannot grade this policy.
    """
    for opened in teachers:
        try:
            policy.add_teacher(frozen_reference(opened))
        except ValueError as error:
            raise UserError(f"{opened.ref}: cannot grade this policy: {error}; give another teacher") from error


def trainable_groups(policy: PolicyModel) -> dict[str, Mapping[str, nn.Parameter]]:
    """Role -> name -> parameter, for the roles that learn: the policy, and the critic with its head."""
    if policy.adapters.get("policy") is None:
        return _groups_of_weights(policy)
    groups: dict[str, Mapping[str, nn.Parameter]] = {}
    for role in ("policy", "value"):
        if role in policy.adapters:
            own = {f"causal_lm.{name}" for name in adapter_parameter_names(policy.causal_lm, role)}
            groups[role] = {
                name: parameter
                for name, parameter in policy.named_parameters()
                if name in own or (role == "value" and name.startswith("value_head."))
            }
    return groups


CRITICS_OWN = ("value_head.", "role_models.value.")
"""How names of a critic's parameters begin, where it has no adapter."""


def _groups_of_weights(policy: PolicyModel) -> dict[str, Mapping[str, nn.Parameter]]:
    """Of a policy that is tuned in its own weights: those that are trained, and those of its critic, if it has one."""
    trained = {name: parameter for name, parameter in policy.named_parameters() if parameter.requires_grad}
    critics = {name: parameter for name, parameter in trained.items() if name.startswith(CRITICS_OWN)}
    groups: dict[str, Mapping[str, nn.Parameter]] = {"policy": {n: p for n, p in trained.items() if n not in critics}}
    return groups | ({"value": critics} if critics else {})
